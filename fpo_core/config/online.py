"""Training on the policy's own samples: which pairs of a step are fresh, and what they add."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from fpo_core.config.fields import setting
from fpo_core.config.training import SamplerConfig
from fpo_core.errors import ConfigError


@dataclass(frozen=True)
class Route:
    """Where a pair's completions and its label come from (SAIL, arXiv 2406.15567)."""

    share: float
    """Of a step's pairs, by default."""
    weight: float = 0.0
    """Of the terms below, by default."""
    samples: bool = True
    """Whether both completions are the policy's own."""
    own_labels: bool = False
    """Whether the policy's own preference labels the pair, in place of a judge."""
    score_term: bool = False
    """Whether the loss has the score term of samples."""

    @property
    def judged(self) -> bool:
        """Whether a judge labels the pair."""
        return not self.own_labels


ROUTES = {
    "plain": Route(share=1.0),
    "ddp": Route(share=0.4, weight=0.2, samples=False, own_labels=True),
    "dpp": Route(share=0.3, weight=0.2, own_labels=True, score_term=True),
    "dpr": Route(share=0.3, weight=0.3, score_term=True),
}
"""SAIL's three, its letters for the source of prompt, completions and label: data, policy, reward;
and two samples with a judge's label in the objective as it is. Defaults are SAIL's."""

if TYPE_CHECKING:
    OnlineName = str
else:
    OnlineName = Literal[tuple(ROUTES)]


@dataclass(frozen=True, kw_only=True)
class OnlineConfig(SamplerConfig):
    """How a run learns from its own samples."""

    online: OnlineName | None = setting(
        None,
        help="Learn from the policy's own samples: plain (two samples, a judge, the objective), "
        "or SAIL's dpr (with its score term), dpp (labelled by the policy itself) or ddp (pairs of "
        "the data, labelled by the policy itself). docs/online.md has the formulas.",
    )
    online_share: float | None = setting(
        None,
        help="Share of a step's pairs that are fresh; the others are the data's. By default "
        + ", ".join(f"{row.share:g} for {name}" for name, row in ROUTES.items())
        + ".",
        least=0.0,
        most=1.0,
    )
    online_weight: float | None = setting(
        None,
        help="Weight of SAIL's terms in the loss. By default "
        + ", ".join(f"{row.weight:g} for {name}" for name, row in ROUTES.items() if row.weight)
        + ".",
        least=0.0,
    )
    online_every: int = setting(
        8, help="Steps between samplings, each for all the steps up to the next.", least=1
    )
    online_tokens: int = setting(64, help="Most tokens of a fresh completion.", least=1)
    online_temperature: float = setting(
        1.0,
        help="Temperature of fresh samples; SAIL's estimator is exact at 1, its authors took 0.9.",
        above=0.0,
    )

    @property
    def route(self) -> Route | None:
        """The route in force, with share and weight as set."""
        if self.online is None:
            return None
        values = {"share": self.online_share, "weight": self.online_weight}
        return replace(ROUTES[self.online], **{k: v for k, v in values.items() if v is not None})

    def check(self) -> None:
        """What is set must take part."""
        for name in OnlineConfig.names():
            if self.online is None and getattr(self, name) != getattr(OnlineConfig, name):
                raise ConfigError(f"{name} is set while online is not: set online, or leave it out")
        if self.online == "plain" and self.online_weight is not None:
            raise ConfigError(
                "online_weight is set, but online plain has no terms of SAIL: leave it out, or "
                "choose dpr, dpp or ddp"
            )
        if self.sampler != "backend" and self.route is not None and not self.route.samples:
            raise ConfigError(
                f"sampler is {self.sampler}, but online {self.online} samples nothing: leave it out"
            )
