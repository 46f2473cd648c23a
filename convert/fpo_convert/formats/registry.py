"""The formats by name. To add one, write a module with a `FORMAT` and list it here."""

from fpo_convert.formats import (
    attention_z,
    batch_topk,
    circuit_tracer,
    dictionary_learning,
    gemma_scope,
    gemma_scope2,
    linear_layers,
    llama_scope,
    openai,
    qwen_scope,
    sae_lens,
    sparsify,
)
from fpo_convert.source_formula import Format

# Detection asks in this order. What has a name of its own comes first; SAELens claims a folder with
# cfg.json alone, to say which file is missing; openai is last, since it must open a file to tell.
_MODULES = (
    llama_scope,
    sae_lens,
    gemma_scope,
    gemma_scope2,
    dictionary_learning,
    sparsify,
    qwen_scope,
    circuit_tracer,
    linear_layers,
    batch_topk,
    attention_z,
    openai,
)
FORMATS: dict[str, Format] = {module.FORMAT.name: module.FORMAT for module in _MODULES}
