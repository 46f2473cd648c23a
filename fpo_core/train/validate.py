"""Scoring held-out pairs."""

import numpy as np

from fpo_core.config import ObjectiveConfig
from fpo_core.data.rows import TokenisedPairs
from fpo_core.metrics import preference_metrics
from fpo_core.policy import Policy
from fpo_core.scores import Scores, join
from fpo_core.train.run_data import RunData, spread


def score_pairs(
    policy: Policy,
    data: RunData,
    split: TokenisedPairs,
    objective: ObjectiveConfig,
    *,
    pairs: int,
    tokens_per_batch: int,
    kl: bool = False,
) -> tuple[Scores, np.ndarray]:
    """Scores of at most `pairs` pairs spread over a split, and their (2b,) stored logps."""
    rows = spread(len(split), pairs)
    parts: list[Scores] = []
    logps: list[np.ndarray] = []
    for batch, reference in data.scan(split, rows, tokens_per_batch):
        parts.append(policy.score(batch, reference, objective, kl=kl).without_pooled())
        logps.append(np.asarray(reference.logps).reshape(2, -1))
    return join(parts), np.concatenate(logps, axis=1).reshape(-1)


def validate(
    policy: Policy,
    data: RunData,
    objective: ObjectiveConfig,
    *,
    pairs: int,
    tokens_per_batch: int,
) -> dict[str, float]:
    """Metrics of the validation pairs under the prefix `eval_`; empty where there are none."""
    if data.valid is None:
        return {}
    scores, logps = score_pairs(
        policy, data, data.valid, objective, pairs=pairs, tokens_per_batch=tokens_per_batch
    )
    metrics = preference_metrics(scores, logps, objective)
    return {f"eval_{name}": value for name, value in metrics.items()}
