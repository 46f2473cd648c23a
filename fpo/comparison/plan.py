"""Which runs a comparison holds: objectives, a grid over settings, and seeds."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fpo_core.config import LINKS, OBJECTIVES, CompareConfig, TrainConfig
from fpo_core.errors import ConfigError

COMPARISONS = ("objective", "output", "seed", "resume", "allow_change", "dry_run", "reference")
"""Settings of a run that belong to the comparison."""


@dataclass(frozen=True)
class Axis:
    """A setting and its values, for one objective or for all."""

    objective: str | None
    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Planned:
    """One run."""

    objective: str
    varied: dict[str, Any]
    """Settings with more than one value in the comparison, and this run's value."""
    seed: int
    config: TrainConfig

    @property
    def variant(self) -> str:
        """Objective and varied settings, such as `fpo alpha=0.5`: what seeds are averaged over."""
        return " ".join([self.objective, *(f"{k}={_short(v)}" for k, v in self.varied.items())])

    @property
    def name(self) -> str:
        """A name for its folder."""
        return f"{self.variant} seed={self.seed}".replace(" ", ",").replace("/", "_")


def plan(config: CompareConfig, shared: Mapping[str, Any], source: str) -> list[Planned]:
    """Every run of a comparison whose runs share these settings of `train`.

    A coefficient goes to the objectives and links that have it. Raises ConfigError for a setting
    that no objective takes, and for settings that a run cannot have.
    """
    # The default preset is FPO's alone: with it the objectives would differ in more than the loss.
    shared = {"preset": "none", **shared}
    axes = [_axis(text) for text in config.grid or ()]
    objectives = list(config.objectives or _possible(shared, axes))
    _check_used(axes, objectives)
    runs: list[Planned] = []
    for seed, objective in itertools.product(config.seeds, objectives):
        varying = _for_objective(axes, objective)
        several = {axis.key for axis in varying if len(axis.values) > 1}
        chosen_before: list[dict[str, Any]] = []
        for values in itertools.product(*(axis.values for axis in varying)):
            every = dict(zip((axis.key for axis in varying), values, strict=True))
            links = {every.get("link", shared.get("link"))}
            chosen = {k: v for k, v in every.items() if _takes(objective, k, links)}
            if chosen in chosen_before:  # they differ in what this link has not
                continue
            chosen_before.append(chosen)
            base = {k: v for k, v in shared.items() if _takes(objective, k, links)}
            varied = {key: value for key, value in chosen.items() if key in several}
            place = {"objective": objective, "seed": int(seed), "output": config.output}
            settings = TrainConfig.from_mapping(base | chosen | place, source)
            runs.append(Planned(objective, varied, int(seed), settings))
    return runs


def _possible(shared: Mapping[str, Any], axes: Sequence[Axis]) -> list[str]:
    """All objectives; those on features only where there is an autoencoder."""
    has_sae = shared.get("sae") is not None or any(axis.key == "sae" for axis in axes)
    return [name for name, row in OBJECTIVES.items() if has_sae or row.needs != "features"]


def _axis(text: str) -> Axis:
    import yaml

    name, equals, values = text.partition("=")
    head, dot, tail = name.rpartition(".")
    key = tail.strip().replace("-", "_")
    objective = head.strip() if dot else None
    if not equals or not values:
        raise ConfigError(
            f"grid has {text!r}, expected a setting and its values, such as beta=1:10"
        )
    if objective is not None and objective not in OBJECTIVES:
        raise ConfigError(
            f"grid has {text!r}, expected an objective before the dot: {', '.join(OBJECTIVES)}"
        )
    if key not in TrainConfig.names() or key in COMPARISONS:
        raise ConfigError(f"grid varies {key!r}, expected another setting of training")
    return Axis(objective, key, tuple(yaml.safe_load(value) for value in values.split(":")))


def _for_objective(axes: Sequence[Axis], objective: str) -> list[Axis]:
    """The axes of an objective: those that name it in place of those for all."""
    specific = {axis.key: axis for axis in axes if axis.objective == objective}
    for_all = {
        axis.key: axis for axis in axes if axis.objective is None and _takes(objective, axis.key)
    }
    return list((for_all | specific).values())


def _takes(objective: str, key: str, links: Iterable[str | None] = LINKS) -> bool:
    """Whether a setting takes part in the objective with any of these links."""
    row = OBJECTIVES[objective]
    if key == "link":
        return row.link is None and row.losses is None
    if any(key in link.coefficients for link in LINKS.values()):
        in_force = () if row.losses else (row.link or link or "logistic" for link in links)
        return any(key in LINKS[link].coefficients for link in in_force)
    if any(key in row.coefficients for row in OBJECTIVES.values()):
        return key in row.coefficients
    return key != "straight_through" or OBJECTIVES[objective].needs == "features"


def _check_used(axes: Iterable[Axis], objectives: Sequence[str]) -> None:
    for axis in axes:
        if axis.objective is not None and axis.objective not in objectives:
            raise ConfigError(
                f"grid sets {axis.key} for {axis.objective}, which is not compared: add it to "
                "objectives, or leave it out"
            )
        if not any(_takes(objective, axis.key) for objective in objectives):
            raise ConfigError(f"grid varies {axis.key}, which none of {', '.join(objectives)} has")


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
