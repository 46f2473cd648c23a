"""The loss and its coefficients."""

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fpo_core.config.fields import Settings, setting
from fpo_core.config.link_table import LINKS, Link, LinkCoefficient, LinkName
from fpo_core.config.objective_table import (
    OBJECTIVES,
    Coefficient,
    Objective,
    ObjectiveName,
    takers,
)
from fpo_core.errors import ConfigError

DEGREE_READING = (
    "degree_weight is our reading of SPO (arXiv 2409.17791), whose authors published no code."
)


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
        "fpo",
        help="Loss to minimise, of the paper's table 1 or beside it; docs/method.md has the "
        f"formulas. {' '.join(row.reading for row in OBJECTIVES.values() if row.reading)}",
    )
    link: LinkName | None = setting(
        None,
        help="How the preference u of a pair becomes its loss (docs/method.md); by default "
        "logistic, the paper's, and lrml for discopop, which is dpo with that link.",
    )
    alpha: float | None = setting(
        None,
        help="Weight of the constraint: fpo's on features, the others' on KL; fpo at 0 is "
        f"dpo-norm. By default {_defaults('alpha')}.",
        least=0.0,
    )
    beta: float | None = setting(
        None,
        help="Scale of the margin, or of asft's log odds, inside the sigmoid. By default "
        f"{_defaults('beta')}.",
        above=0.0,
    )
    gamma: float | None = setting(
        None,
        help=f"Margin to reach in place of the reference's. By default {_defaults('gamma')}.",
        least=0.0,
    )
    odds_lambda: float | None = setting(
        None,
        help="Weight of the loss on odds, beside the supervised one on chosen completions. By "
        f"default {_defaults('odds_lambda')}.",
        least=0.0,
    )
    discopop_tau: float | None = setting(
        None,
        help=f"Temperature between DiscoPOP's two losses. By default {_defaults('discopop_tau')}.",
        above=0.0,
    )
    aps_rho: float | None = setting(
        None,
        help="How far adaptive preference scaling may move from even odds, in nats; from log 2 on "
        f"every pair has the least temperature. By default {_defaults('aps_rho')}.",
        above=0.0,
    )
    aps_tau_min: float | None = setting(
        None,
        help=f"Least temperature of a pair. By default {_defaults('aps_tau_min')}.",
        above=0.0,
    )
    aps_tau_max: float | None = setting(
        None,
        help=f"Greatest temperature of a pair. By default {_defaults('aps_tau_max')}.",
        above=0.0,
    )
    label_smoothing: float = setting(
        0.0, help="Share of pairs taken to be labelled the wrong way.", least=0.0, most=0.49
    )
    rpo_alpha: float = setting(
        0.0,
        help="Weight of an added −log π(chosen) / |chosen| (RPO's term of supervised training); by "
        "default the preset's, 0 where it has none. The preset's learning rate goes with this "
        "term: where less of it is given, the default is the optimizer's.",
        least=0.0,
    )
    degree_weight: float = setting(
        0.0,
        help="Weight of SPO's loss of degrees, in training alone: a head learns how much of a "
        f"reply was removed, by a second forward pass in each step. {DEGREE_READING}",
        least=0.0,
    )
    degree_levels: int = setting(
        4, help="Degrees K: level j lacks j/K of a reply's key phrases.", least=2, most=64
    )
    degree_removal: Literal["keywords", "random"] = setting(
        "keywords",
        help="What is removed: key phrases, or as a control as many words at random.",
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

    @property
    def reading(self) -> str:
        """Where the loss is not its authors' own text: what it rests on; empty where it is."""
        parts = self.objective_entry.reading, DEGREE_READING if self.degree_weight else ""
        return " ".join(filter(None, parts))

    @property
    def link_name(self) -> str | None:
        """The link in force: as set, else the objective's own; None where the loss has no u."""
        entry = self.objective_entry
        return None if entry.losses else self.link or entry.link or "logistic"

    @property
    def coefficients(self) -> dict[str, float]:
        """Every coefficient of the objective and its link in force: as set, else the default."""
        name = self.link_name
        link = Link(smoothed=False) if name is None else LINKS[name]
        defaults = {**self.objective_entry.coefficients, **link.coefficients}
        values = {name: getattr(self, name) for name in defaults}
        return {k: defaults[k] if value is None else value for k, value in values.items()}

    def coefficient(self, name: Coefficient) -> float:
        """A coefficient in force, 0 where neither the objective nor its link has it."""
        return self.coefficients.get(name, 0.0)

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
        """Coefficients were chosen for an objective and a link: others have their own defaults."""
        dropped: set[str] = set()
        for key, meant_for in {"objective": Coefficient, "link": LinkCoefficient}.items():
            meant = defaults.get(key, getattr(cls, key))
            if values.get(key, meant) != meant:
                dropped |= {*typing.get_args(meant_for), "link"}
        return {k: v for k, v in defaults.items() if k not in dropped}

    def check(self) -> None:
        """What is set must take part: an objective ignores nothing in silence."""
        entry, name = self.objective_entry, f"the objective {self.objective}"
        if self.link is not None and (entry.link or entry.losses):
            raise ConfigError(
                f"link is {self.link}, but {name} has a loss of its own: leave it out, or choose "
                "another objective, such as dpo"
            )
        for coefficient in typing.get_args(Coefficient):
            if getattr(self, coefficient) is not None and coefficient not in self.coefficients:
                raise ConfigError(
                    f"{coefficient} is set, but {name} has none: leave it out, or choose an "
                    f"objective or link that has it ({', '.join(takers(coefficient))})"
                )
        bounds = self.coefficient("aps_tau_min"), self.coefficient("aps_tau_max")
        if "aps_tau_max" in self.coefficients and bounds[0] > bounds[1]:
            raise ConfigError(
                f"aps_tau_min is {bounds[0]:g} and aps_tau_max {bounds[1]:g}, expected the greater "
                "last: swap them"
            )
        link = self.link_name
        loss = f"{name} has a loss of its own" if link is None else f"the link {link} takes none"
        unused = {
            f"stop_gradient is off, but {name} stops no gradient": not self.stop_gradient
            and "alpha" not in entry.coefficients,
            f"straight_through is set, but {name} has no D": self.straight_through
            and entry.needs != "features",
            f"label_smoothing is set, but {loss}": self.label_smoothing > 0
            and (link is None or not LINKS[link].smoothed),
        }
        for sentence, applies in unused.items():
            if applies:
                raise ConfigError(f"{sentence}: leave it out")


@dataclass(frozen=True, kw_only=True)
class ConstraintConfig(Settings):
    """How much the constraint weighs in a step."""

    constraint_share: float | None = setting(
        None,
        help="Share to hold between the constraint's gradient and the preference's, such as 0.3: "
        "alpha, its first value, is then adapted at every validation.",
        above=0.0,
        most=10.0,
    )
