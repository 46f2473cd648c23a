"""The loss and its coefficients."""

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fpo_core.config.fields import Settings, setting
from fpo_core.config.objective_table import (
    OBJECTIVES,
    Coefficient,
    Objective,
    ObjectiveName,
    takers,
)
from fpo_core.errors import ConfigError


def _defaults(name: Coefficient) -> str:
    """The defaults of a coefficient in words, for its help."""
    values: dict[float, list[str]] = {}
    for objective, value in takers(name).items():
        values.setdefault(value, []).append(objective)
    return "; ".join(f"{value:g} for {', '.join(names)}" for value, names in values.items())


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(Settings):
    """The loss −log σ(LPD − margin − δ) (eq. 8); FPO's: eq. 11."""

    objective: ObjectiveName = setting(
        "fpo", help="Row of the paper's table 1 to minimise; docs/method.md has their formulas."
    )
    alpha: float | None = setting(
        None,
        help="Weight of the constraint: fpo's on features, the others' on KL; fpo at 0 is "
        f"dpo-norm. By default {_defaults('alpha')}.",
        least=0.0,
    )
    beta: float | None = setting(
        None,
        help=f"Scale of the margin inside the sigmoid. By default {_defaults('beta')}.",
        above=0.0,
    )
    gamma: float | None = setting(
        None,
        help=f"Margin to reach in place of the reference's. By default {_defaults('gamma')}.",
        least=0.0,
    )
    discopop_tau: float | None = setting(
        None,
        help=f"Temperature between DiscoPOP's two losses. By default {_defaults('discopop_tau')}.",
        above=0.0,
    )
    label_smoothing: float = setting(
        0.0, help="Share of pairs taken to be labelled the wrong way.", least=0.0, most=0.49
    )
    rpo_alpha: float = setting(
        0.0,
        help="Weight of an added −log π(chosen) / |chosen| (RPO's term of supervised training).",
        least=0.0,
    )
    stop_gradient: bool = setting(
        True,
        help="Stop the gradient of the chosen side's drift; off, the loss rewards that drift.",
    )
    k: int = setting(50, help="Features of policy and of reference that D compares.", least=1)
    normalize_d: bool = setting(
        True,
        help="Divide D by the mean squared reference feature, so that alpha carries between "
        "autoencoders; off, D is the paper's.",
    )
    straight_through: bool = setting(
        False,
        help="Let D's gradient reach features that the policy switched off in a whole completion.",
    )

    @property
    def objective_entry(self) -> Objective:
        """The row of the objective."""
        return OBJECTIVES[self.objective]

    def coefficient(self, name: Coefficient) -> float:
        """A coefficient in force: as set, else the objective's default, 0 where it has none."""
        value = getattr(self, name)
        return self.objective_entry.coefficients.get(name, 0.0) if value is None else value

    @property
    def constraint_weight(self) -> float:
        """α in force: 0 where the objective has no constraint, 1 for tdpo1."""
        return 1.0 if self.objective_entry.symmetric else self.coefficient("alpha")

    @property
    def needs_features(self) -> bool:
        """Whether the loss reads D, so that a step needs an autoencoder's features."""
        # An objective on features at α = 0 is the same loss without them (fpo: dpo-norm).
        weighed = "alpha" not in self.objective_entry.coefficients or self.constraint_weight > 0
        return self.objective_entry.needs == "features" and weighed

    @property
    def needs_kl(self) -> bool:
        """Whether the loss reads the sequential KL, hence the reference's whole distribution."""
        return self.objective_entry.needs == "kl"

    @classmethod
    def fitting(cls, defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """Coefficients were chosen for an objective: with another one its own defaults hold."""
        meant = defaults.get("objective", cls.objective)
        if values.get("objective", meant) == meant:
            return dict(defaults)
        return {k: v for k, v in defaults.items() if k not in typing.get_args(Coefficient)}

    def check(self) -> None:
        """What is set must take part: an objective ignores nothing in silence."""
        for name in typing.get_args(Coefficient):
            if getattr(self, name) is not None and name not in self.objective_entry.coefficients:
                raise ConfigError(
                    f"{name} is set, but the objective {self.objective} has none: leave it out, or "
                    f"choose an objective that has it ({', '.join(takers(name))})"
                )
        entry, name = self.objective_entry, f"the objective {self.objective}"
        unused = {
            f"stop_gradient is off, but {name} stops no gradient": not self.stop_gradient
            and "alpha" not in entry.coefficients,
            f"straight_through is set, but {name} has no D": self.straight_through
            and entry.needs != "features",
            f"label_smoothing is set, but {name} has a loss of its own": self.label_smoothing > 0
            and not entry.smoothed,
        }
        for sentence, applies in unused.items():
            if applies:
                raise ConfigError(f"{sentence}: leave it out")
