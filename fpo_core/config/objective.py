"""The loss and its coefficients."""

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fpo_core.config.fields import Settings, setting
from fpo_core.errors import ConfigError

ObjectiveName = Literal["fpo", "dpo-norm", "dpo", "simpo", "simpo-kl", "tdpo1", "tdpo2", "discopop"]
Coefficient = Literal["alpha", "beta", "gamma", "discopop_tau"]
COEFFICIENTS: dict[ObjectiveName, dict[Coefficient, float]] = {
    "fpo": {"beta": 2.0, "alpha": 5.0},
    "dpo-norm": {"beta": 2.0},
    "dpo": {"beta": 0.1},
    "simpo": {"beta": 2.0, "gamma": 0.5},
    "simpo-kl": {"beta": 2.0, "gamma": 0.5, "alpha": 0.5},
    "tdpo1": {"beta": 0.1},
    "tdpo2": {"beta": 0.1, "alpha": 0.5},
    "discopop": {"beta": 0.1, "discopop_tau": 0.05},
}
"""The coefficients that each objective has, and their defaults: those of the papers, but for the
first two, whose are from experiments (docs/choosing.md); `paper` among the presets has its own."""


def _default(name: Coefficient) -> str:
    """The defaults of a coefficient in words, for its help."""
    values: dict[float, list[str]] = {}
    for objective, row in COEFFICIENTS.items():
        if name in row:
            values.setdefault(row[name], []).append(objective)
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
        f"dpo-norm. By default {_default('alpha')}.",
        least=0.0,
    )
    beta: float | None = setting(
        None,
        help=f"Scale of the margin inside the sigmoid. By default {_default('beta')}.",
        above=0.0,
    )
    gamma: float | None = setting(
        None,
        help=f"Margin to reach in place of the reference's. By default {_default('gamma')}.",
        least=0.0,
    )
    discopop_tau: float | None = setting(
        None,
        help=f"Temperature between DiscoPOP's two losses. By default {_default('discopop_tau')}.",
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

    def coefficient(self, name: Coefficient) -> float:
        """A coefficient in force: as set, else the objective's default, 0 where it has none."""
        given = getattr(self, name)
        return COEFFICIENTS[self.objective].get(name, 0.0) if given is None else given

    @classmethod
    def fitting(cls, defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """Coefficients were chosen for an objective: with another one its own defaults hold."""
        meant = defaults.get("objective", "fpo")
        if values.get("objective", meant) == meant:
            return dict(defaults)
        return {k: v for k, v in defaults.items() if k not in typing.get_args(Coefficient)}

    def check(self) -> None:
        """What is set must take part: an objective ignores nothing in silence."""
        own = COEFFICIENTS[self.objective]
        for name in typing.get_args(Coefficient):
            if getattr(self, name) is not None and name not in own:
                takers = ", ".join(key for key, row in COEFFICIENTS.items() if name in row)
                raise ConfigError(
                    f"{name} is set, but the objective {self.objective} has none: leave it out, or "
                    f"choose an objective that has it ({takers})"
                )
        if not self.stop_gradient and "alpha" not in own:
            raise ConfigError(
                f"stop_gradient is off, but the objective {self.objective} stops no gradient: "
                "leave it out"
            )
        if self.straight_through and self.objective != "fpo":
            raise ConfigError(
                f"straight_through is set, but the objective {self.objective} has no D: leave it "
                "out"
            )
        if self.label_smoothing and self.objective == "discopop":
            raise ConfigError(
                "label_smoothing is set, but discopop has a loss of its own: leave it out"
            )
