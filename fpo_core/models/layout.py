"""How transformers and mlx-lm name the blocks of the same model, by family."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """Paths of the blocks; most families have the defaults."""

    peft: str = "model.layers"
    """Path of the blocks in transformers' model, which PEFT's keys follow."""
    mlx: str = "model.layers"
    """Path of the blocks in mlx-lm's model."""
    stored: tuple[str, ...] = ("model.layers",)
    """Paths of the blocks in checkpoints that both libraries open."""
    transposed: bool = False
    """Whether checkpoints store linear weights as (in, out), as transformers' Conv1D does."""

    @property
    def same_names(self) -> bool:
        """Whether weights have the same names in both libraries."""
        return self.peft == self.mlx


_LAYOUTS = {
    # The hub's checkpoints hold the body alone, transformers' the whole model.
    "gpt2": Layout("transformer.h", "model.h", ("h", "transformer.h"), transposed=True),
    "gpt_neox": Layout("gpt_neox.layers", "model.h", ("gpt_neox.layers",)),
    "gemma3": Layout(
        "model.language_model.layers",
        "language_model.model.layers",
        ("language_model.model.layers", "model.language_model.layers"),
    ),
}


def layout_of(model_type: str) -> Layout:
    """The layout of a family."""
    return _LAYOUTS.get(model_type, Layout())


def layouts_with(path: str) -> list[Layout]:
    """The layouts in which the blocks have this path in either library."""
    known = (Layout(), *_LAYOUTS.values())
    return [layout for layout in known if path in (layout.peft, layout.mlx)]
