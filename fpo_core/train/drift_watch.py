"""Drift while a run goes on: perplexity of texts and KL at validations, told and bounded."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fpo_core.backend.policy import Policy
from fpo_core.config import TrainConfig
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.errors import ConfigError
from fpo_core.loss.metrics import WORSE_TEXT
from fpo_core.loss.scores import chosen
from fpo_core.train.paired_data import RunData
from fpo_core.train.validate import score_pairs

TEXTS, PAIRS = 20, 16
"""Most texts whose perplexity is watched, and most held-out pairs whose KL is."""
_PERPLEXITY, _KL = "eval_perplexity", "eval_fpo/kl_per_token"


@dataclass(frozen=True)
class DriftWatch:
    """What a run measures of its policy's drift at each validation."""

    config: TrainConfig
    perplexity: Callable[[Policy], float] | None = None
    """Of a few texts that the pairs have nothing to do with; None where there are none."""

    @property
    def bounded(self) -> bool:
        """Whether a run may end for its drift."""
        return self.config.max_perplexity is not None or self.config.max_kl is not None

    def check(self, valid: TokenisedPairs | None) -> None:
        """Raise ConfigError where a bound is on what the run cannot measure."""
        if self.config.max_kl is not None and valid is None:
            raise ConfigError(
                f"max_kl is {self.config.max_kl:g}, but no pairs are held out to measure KL on: "
                "set valid_fraction (such as 0.05), give a validation file, or leave max_kl out"
            )

    def measure(self, policy: Policy, data: RunData) -> dict[str, float]:
        """Perplexity, and where it is bounded the sequential KL per chosen token in nats."""
        values = {} if self.perplexity is None else {_PERPLEXITY: self.perplexity(policy)}
        if self.config.max_kl is not None and data.valid is not None:
            scores, _ = score_pairs(
                policy,
                data,
                data.valid,
                self.config,
                pairs=PAIRS,
                tokens_per_batch=self.config.tokens_per_batch,
                kl=True,
            )
            tokens = np.sum(chosen(np.asarray(scores.lengths)))
            values[_KL] = float(np.sum(chosen(np.asarray(scores.kl))) / tokens)
        return values

    def beyond(self, values: Mapping[str, float], start: Mapping[str, float]) -> str | None:
        """Which bound the measurements of a validation exceed, in words."""
        rise, kl = _rise(values, start), values.get(_KL)
        most = self.config.max_perplexity
        if most is not None and rise is not None and not rise <= most:
            return f"perplexity of texts was {rise:.3g} times the start's, above {most:g}"
        most = self.config.max_kl
        if most is not None and kl is not None and not kl <= most:
            return f"KL per chosen token was {kl:.3g} nats, above {most:g}"
        return None

    def warning(
        self, values: Mapping[str, float], start: Mapping[str, float], before: Mapping[str, float]
    ) -> str | None:
        """A warning where texts got harder to predict, unless the validation `before` said so."""
        rise, earlier = _rise(values, start), _rise(before, start)
        limit = 1 + WORSE_TEXT
        if rise is None or rise <= limit or (earlier is not None and earlier > limit):
            return None
        return (
            f"the policy drifts far: perplexity of texts is {rise:.3g} times the start's: lower "
            "learning_rate, or set max_perplexity to end a run that does"
        )


def _rise(values: Mapping[str, float], start: Mapping[str, float]) -> float | None:
    """Perplexity over the start's; infinite where it is not a number."""
    first, now = start.get(_PERPLEXITY), values.get(_PERPLEXITY)
    if first is None or now is None:
        return None
    return now / first if math.isfinite(now) else math.inf
