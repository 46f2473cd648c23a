"""The optimizers, a row each.

A backend maps the parts of a state to its framework's names in its `optimizer.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class OptimizerEntry:
    """What settings, checkpoints and backends must know of an optimizer."""

    rates: tuple[float, float]
    """Default peak learning rates: of adapters, of full training."""
    parts: Callable[[Shape], dict[str, Shape]]
    """What the state holds of a weight of this shape: parts and their shapes."""
    decays: bool = True
    """Whether `weight_decay` is decoupled in every framework, so that it means the same."""
    lacking: tuple[str, ...] = ()
    """Backends whose framework does not have it."""


def _factored(shape: Shape) -> dict[str, Shape]:
    """Means of the squared gradient over the rows and columns of a matrix, all of a vector's."""
    return {"row": shape[:-1], "col": shape[:-2] + shape[-1:]} if len(shape) > 1 else {"v": shape}


OPTIMIZERS = {
    # m and v are stored without bias correction.
    "adamw": OptimizerEntry(rates=(1e-4, 1e-5), parts=lambda shape: {"m": shape, "v": shape}),
    "adafactor": OptimizerEntry(rates=(1e-2, 1e-3), parts=_factored, decays=False),
    "lion": OptimizerEntry(
        rates=(3e-5, 3e-6), parts=lambda shape: {"m": shape}, lacking=("torch",)
    ),
}
"""Every optimizer by name. Learning rates are from experiments (docs/choosing.md)."""

if TYPE_CHECKING:
    OptimizerName = str
else:
    OptimizerName = Literal[tuple(OPTIMIZERS)]


def described_rates() -> str:
    """The default learning rates in words, for the help."""
    return ", ".join(
        f"{_short(entry.rates[0])} and {_short(entry.rates[1])} ({name})"
        for name, entry in OPTIMIZERS.items()
    )


def _short(rate: float) -> str:
    return f"{rate:.0e}".replace("e-0", "e-")
