"""The formats by name. To add one, write a module with a `FORMAT` and list it here."""

from fpo_convert.formats import (
    dictionary_learning,
    gemma_scope,
    gemma_scope2,
    llama_scope,
    openai,
    qwen_scope,
    sae_lens,
    sparsify,
)
from fpo_convert.source_formula import Format

# Detection asks in this order. SAELens comes first since it claims a folder with cfg.json alone, to
# say which file is missing; openai last, since it must open a .pt file to tell.
_MODULES = (
    sae_lens,
    gemma_scope,
    gemma_scope2,
    llama_scope,
    dictionary_learning,
    sparsify,
    qwen_scope,
    openai,
)
FORMATS: dict[str, Format] = {module.FORMAT.name: module.FORMAT for module in _MODULES}
