"""The state of a run besides its weights: from both it goes on as if it had never stopped."""

import dataclasses
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

Metrics = dict[str, float]
FAR_LOSS = 10.0
"""How many times its usual value, or its first, a loss must exceed to count as diverging."""
_LOSS_WEIGHT = 0.02
_BASELINE_WEIGHT = 0.1


@dataclass
class Window:
    """Metrics of the steps since the last report."""

    values: list[Metrics] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0

    def add(self, values: Metrics, tokens: int, seconds: float) -> None:
        """Count one step."""
        self.values.append(values)
        self.tokens += tokens
        self.seconds += seconds

    def means(self) -> Metrics:
        """Means over the steps, and their speed; empty where every step was skipped."""
        if not self.values:
            return {}
        # Not all steps have all of them where a resumed run changed its objective in between.
        names = {name: None for values in self.values for name in values}
        means = {n: float(np.mean([v[n] for v in self.values if n in v])) for n in names}
        elapsed = max(self.seconds, 1e-9)
        return means | {
            "learning_rate": self.values[-1]["learning_rate"],
            "tokens_per_second": self.tokens / elapsed,
            "seconds_per_step": elapsed / len(self.values),
        }


@dataclass
class RunState:
    """Counters and results of a run so far; every field is part of a checkpoint."""

    step: int = 0
    num_tokens: int = 0
    skipped: int = 0
    nonfinite_in_a_row: int = 0
    best_value: float | None = None
    """The best value so far of `best_metric`."""
    best_step: int | None = None
    within: int | None = None
    """Step of the last validation within the bounds on drift, where there are any."""
    stale: int = 0
    """Validations in a row that were no better."""
    seconds: float = 0.0
    """Time spent, resumed parts included."""
    window: Window = field(default_factory=Window)
    first: Metrics = field(default_factory=dict)
    """Metrics of the first step."""
    last: Metrics = field(default_factory=dict)
    """Metrics of the last report."""
    last_d: float | None = None
    """D of rejected completions in the last step; None where the loss reads none."""
    evals: list[tuple[int, Metrics]] = field(default_factory=list)
    """Validation metrics by step, step 0 among them."""
    ratios: list[float] = field(default_factory=list)
    """`fpo/constraint_ratio` of each step after the warm-up."""
    shares: list[tuple[int, float]] = field(default_factory=list)
    """The constraint's share of the gradient, by step."""
    alpha: float | None = None
    """The α in force, where `constraint_share` adapts it."""
    d_floor: float | None = None
    """D of rejected completions at the reference itself, which is rounding; None where not read."""
    online_f: float | None = None
    """A moving mean of log σ(u) over samples under SAIL's score term, its baseline."""
    usual_loss: float | None = None
    """A moving mean of the loss over about fifty steps."""
    loss_is_far: bool = False
    """Whether the last loss was far beyond the usual one."""

    @property
    def diverges(self) -> bool:
        """Whether the weights are not worth keeping: steps are skipped, or the loss has left."""
        return self.nonfinite_in_a_row > 0 or self.loss_is_far

    def note_loss(self, loss: float) -> None:
        """Compare a step's loss with its history, then make it part of that."""
        usual = loss if self.usual_loss is None else self.usual_loss
        # The first loss gives the scale: late in a run the usual one may be close to 0. So may the
        # first of a link whose loss has no least value: then that of −log σ does.
        limit = FAR_LOSS * max(abs(usual), abs(self.first.get("loss", usual)), math.log(2))
        self.loss_is_far = loss > limit
        self.usual_loss = usual + _LOSS_WEIGHT * (min(loss, limit) - usual)

    def note_online(self, f: float | None) -> None:
        """Make a step's mean log σ(u) of own samples part of the baseline of later steps."""
        if f is not None and math.isfinite(f):
            earlier = f if self.online_f is None else self.online_f
            self.online_f = earlier + _BASELINE_WEIGHT * (f - earlier)

    @property
    def constraint_ratio(self) -> float | None:
        """Median after the warm-up; None without an autoencoder."""
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def constraint_share(self) -> float | None:
        """The last one measured."""
        return self.shares[-1][1] if self.shares else None

    def out_of_patience(self, validations: int | None) -> bool:
        """Whether so many validations in a row were no better; never with None."""
        return validations is not None and self.stale >= validations

    def to_mapping(self) -> dict[str, Any]:
        """The state as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """The state that `to_mapping` wrote; raises KeyError or TypeError for anything else."""
        window = Window(**values["window"])
        evals = [(int(step), metrics) for step, metrics in values["evals"]]
        shares = [(int(step), float(share)) for step, share in values.get("shares", ())]
        return cls(**{**values, "window": window, "evals": evals, "shares": shares})


class Stopwatch:
    """Seconds since it was last asked."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.monotonic()
        passed, self._last = now - self._last, now
        return passed
