"""Is a model the one that something was made for, a copy of it, or a fine-tune? Told by names."""

import re
from collections.abc import Collection
from pathlib import Path

from fpo_core.models.folder import ModelFolder

_COPIES = re.compile(r"(-(bf16|fp16|mlx|gguf|awq|gptq|\d+-?bit|q\d\w*|qat|unsloth|bnb|pt|hf))+$")
"""What re-uploads of a model add to its name."""
_TUNED = re.compile(r"-(base|it|instruct|chat)$")
_RELEASED = re.compile(r"-v\d+(\.\d+)*$|^meta-(?=llama)")
_ALIASES = {"gpt2-small": "gpt2", "deepseek-r1-distill-llama-8b": "llama-3.1-8b"}
_HUB_CACHE = re.compile(r"models--([^/]+)--([^/]+)")
_BASE_MODEL = re.compile(r"^base_model:[ ]*(?:\n[ ]*-[ ]+)?[\"']?(\w[\w./-]*)", re.MULTILINE)

# How names of a family begin, the longer beginnings first, and its model types.
_FAMILIES = {
    "deepseek-r1-distill-llama": ("llama",),
    "gemma-3": ("gemma3", "gemma3_text"),
    "gemma-2": ("gemma2",),
    "gemma": ("gemma",),
    "gpt-oss": ("gpt_oss",),
    "gpt2": ("gpt2",),
    "llama": ("llama",),
    "mistral": ("mistral",),
    "olmo": ("olmo", "olmo2"),
    "phi": ("phi", "phi3"),
    "pythia": ("gpt_neox",),
    "qwen3.5": ("qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"),
    "qwen3": ("qwen3", "qwen3_moe"),
    "qwen2": ("qwen2",),
    "smollm": ("llama", "smollm3"),
}


def same_key(name: str) -> str:
    """A model's name without its owner and what copies of it add: equal for the same weights."""
    return _COPIES.sub("", name.rstrip("/").rpartition("/")[2].lower())


def family_key(name: str) -> str:
    """Equal for a model, its copies, and the instruction-tuned models and distillates of it."""
    key = _TUNED.sub("", _RELEASED.sub("", same_key(name)))
    return _ALIASES.get(key, key)


def model_names(model: ModelFolder) -> list[str]:
    """What the model is called: by its user, the hub's cache, its configuration and its card."""
    names = [model.name, str(model.config.get("_name_or_path") or "")]
    names += ["/".join(match) for match in _HUB_CACHE.findall(str(model.path.resolve()))]
    card = model.path / "README.md"
    if card.is_file():
        front = card.read_text(encoding="utf-8", errors="replace").partition("\n---")[0]
        names += _BASE_MODEL.findall(front)
    return [name for name in dict.fromkeys(names) if name]


def doubt(made_for: str, names: Collection[str], model_type: str | None) -> str | None:
    """Why a model may not be the one that something was made for, as a clause; None if it may.

    It may where one of its `names` is of the same family, and where nothing is known of either:
    no family's names begin so. The architecture of a family is known, so that a name that tells
    nothing, such as a folder's, does not hide another one.
    """
    wanted = family_key(made_for)
    if not made_for or wanted in {family_key(name) for name in names}:
        return None
    types = _types(wanted)
    if types and model_type and model_type not in types:
        return f"this one is of type {model_type}"
    other = next((name for name in names if _types(family_key(name))), None)
    return f"this one is {Path(other).name}" if types and other else None


def _types(key: str) -> tuple[str, ...]:
    return next((types for start, types in _FAMILIES.items() if key.startswith(start)), ())
