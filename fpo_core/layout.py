"""Where a family's blocks sit in transformers' model and in mlx-lm's, and what else differs."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Layout:
    """How the two libraries spell the same model."""

    peft: str = "model.layers"
    """Path of the blocks in transformers' model, which PEFT's keys follow."""
    mlx: str = "model.layers"
    """Path of the blocks in mlx-lm's model."""
    transposed: bool = False
    """Whether checkpoints keep linear weights as (in, out): transformers' Conv1D."""


_LAYOUTS = {
    "gpt2": Layout("transformer.h", "model.h", transposed=True),
    "gpt_neox": Layout("gpt_neox.layers", "model.h"),
}


def layout_of(model_type: str) -> Layout:
    """The layout of a family; most have the same one."""
    return _LAYOUTS.get(model_type, Layout())


def layouts_with(path: str) -> list[Layout]:
    """The layouts that know this path of blocks."""
    known = (Layout(), *_LAYOUTS.values())
    return [layout for layout in known if path in (layout.peft, layout.mlx)]


def keys_of_mlx(settings: dict[str, Any]) -> dict[str, Any]:
    """What mlx-lm reads at the top level of a config.json and transformers 5 nests or leaves out.

    mlx-lm's llama, qwen2 and gemma2 classes fall back to a rope base of their own without a word.
    """
    rope = settings.get("rope_parameters") or {}
    rope = rope.get("full_attention", rope)  # Gemma 3 has one for each kind of attention
    values = {"rope_theta": rope.get("rope_theta")}
    if settings.get("model_type") == "gpt2":
        values["n_ctx"] = settings.get("n_positions")
    if settings.get("model_type") == "gpt_neox":
        values["rotary_emb_base"] = rope.get("rope_theta")
        values["rotary_pct"] = rope.get("partial_rotary_factor")
    return {k: v for k, v in values.items() if v is not None and k not in settings}
