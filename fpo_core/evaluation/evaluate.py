"""Evaluation of a policy: metrics on held-out pairs, and samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fpo_core.backend.policy import Policy, Sampling
from fpo_core.config import ObjectiveConfig
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.evaluation.texts import sequences
from fpo_core.events import Sink, silent
from fpo_core.loss.metrics import preference_metrics, reference_accuracy, wilson_interval
from fpo_core.train.paired_data import RunData
from fpo_core.train.validate import score_pairs


@dataclass(frozen=True)
class Share:
    """A share of pairs with its 95% interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, count: int) -> "Share":
        """The share `value` seen in `count` pairs."""
        return cls(value, *wilson_interval(value, count))

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Evaluation:
    """Means over held-out pairs; KL and D are None where they could not be measured."""

    pairs: int
    raw_accuracy: Share
    """Pairs whose chosen completion has the higher mean log-probability."""
    reward_accuracy: Share
    """Pairs whose mean log-probability rose more on the chosen side, whatever the objective."""
    metrics: dict[str, float]
    """Everything else, by its name in the log."""

    def to_mapping(self) -> dict[str, Any]:
        """The evaluation as JSON values."""
        return {
            "pairs": self.pairs,
            "raw_accuracy": vars(self.raw_accuracy),
            "reward_accuracy": vars(self.reward_accuracy),
        } | self.metrics


def evaluate(
    policy: Policy,
    data: RunData,
    split: TokenisedPairs,
    objective: ObjectiveConfig,
    *,
    pairs: int,
    tokens_per_batch: int,
    kl: bool = True,
    emit: Sink = silent,
) -> Evaluation:
    """Evaluate on pairs spread over a split; KL needs `policy.set_reference` before."""
    scores, logps = score_pairs(
        policy,
        data,
        split,
        objective,
        pairs=pairs,
        tokens_per_batch=tokens_per_batch,
        kl=kl,
        emit=emit,
    )
    metrics = preference_metrics(scores, logps, objective)
    count = len(scores.logps) // 2
    return Evaluation(
        pairs=count,
        raw_accuracy=Share.of(metrics.pop("fpo/raw_accuracy"), count),
        reward_accuracy=Share.of(reference_accuracy(scores, logps), count),
        metrics=metrics,
    )


@dataclass(frozen=True)
class Samples:
    """Completions sampled from a policy, and their next-token entropy."""

    completions: list[np.ndarray]
    """Token ids, the end of turn included where it was reached."""
    entropy: float
    """Mean next-token entropy over the samples' tokens, in nats."""
    length: float
    """Mean tokens of a completion."""


def distinct(completions: Sequence[np.ndarray], n: int) -> float | None:
    """Distinct n-grams of tokens over all of them (Li et al. 2016); None where there is none."""
    grams = [tuple(ids[i : i + n].tolist()) for ids in completions for i in range(len(ids) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def sample(
    policy: Policy,
    prompts: Sequence[np.ndarray],
    sampling: Sampling,
    numbers: Sequence[int] | None = None,
) -> Samples:
    """Sample a completion of each prompt and measure next-token entropy on it."""
    # In a second pass: `generate` returns tokens, and its softmax is that of a temperature.
    completions = policy.generate(list(prompts), sampling, numbers=numbers)
    rows = [
        np.concatenate([prompt, completion])
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    batch = sequences([row.tolist() for row in rows], [len(prompt) for prompt in prompts])
    scores = policy.score(batch, entropy=True)
    entropy = float(np.asarray(scores.entropy).sum() / scores.lengths.sum())
    return Samples(completions, entropy, float(scores.lengths.mean()))
