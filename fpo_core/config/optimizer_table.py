"""The optimizers, a row each.

A backend maps the parts of a state to its framework's names in its `optimizer.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

Shape = tuple[int, ...]
DirectionSetting = Literal["zo_rank", "zo_interval", "zo_epsilon", "zo_momentum"]


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
    directions: Mapping[DirectionSetting, float] = field(default_factory=dict)
    """Of a zeroth-order optimizer, the settings of its directions, with their defaults; empty where
    steps are taken with gradients."""


def _factored(shape: Shape) -> dict[str, Shape]:
    """Means of the squared gradient over the rows and columns of a matrix, all of a vector's."""
    return {"row": shape[:-1], "col": shape[:-2] + shape[-1:]} if len(shape) > 1 else {"v": shape}


def _nothing(shape: Shape) -> dict[str, Shape]:
    """No state."""
    del shape
    return {}


_LOW_RANK: Mapping[DirectionSetting, float] = {"zo_rank": 2, "zo_interval": 50, "zo_epsilon": 1e-3}
OPTIMIZERS = {
    # m and v are stored without bias correction.
    "adamw": OptimizerEntry(rates=(1e-4, 1e-5), parts=lambda shape: {"m": shape, "v": shape}),
    "adafactor": OptimizerEntry(rates=(1e-2, 1e-3), parts=_factored, decays=False),
    "lion": OptimizerEntry(
        rates=(3e-5, 3e-6), parts=lambda shape: {"m": shape}, lacking=("torch",)
    ),
    # Computed by the core on either framework (`fpo_core.backend.zeroth_order`); what lozo-m holds
    # of a weight depends on the rank too.
    "lozo": OptimizerEntry(rates=(1e-2, 1e-5), parts=_nothing, decays=False, directions=_LOW_RANK),
    "lozo-m": OptimizerEntry(
        rates=(1e-2, 1e-5),
        parts=_nothing,
        decays=False,
        directions={**_LOW_RANK, "zo_momentum": 0.9},
    ),
    "mezo": OptimizerEntry(
        rates=(1e-2, 1e-5), parts=_nothing, decays=False, directions={"zo_epsilon": 1e-3}
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


def described_directions(name: DirectionSetting) -> str:
    """The defaults of a setting of directions in words, for its help."""
    rows = {key: row.directions[name] for key, row in OPTIMIZERS.items() if name in row.directions}
    (value,) = set(rows.values())
    return f"{value:g} for {', '.join(rows)}"


def _short(rate: float) -> str:
    return f"{rate:.0e}".replace("e-0", "e-")
