"""Where a family's blocks sit in transformers' model and in mlx-lm's, and what else differs."""

from dataclasses import dataclass


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
