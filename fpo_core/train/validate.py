"""Validation: scores and metrics of held-out pairs."""

import numpy as np

from fpo_core.backend.policy import Policy
from fpo_core.backend.process_group import gather_scores, joined
from fpo_core.config import LoopConfig, ObjectiveConfig, TrainConfig
from fpo_core.data.batching import scoring_batches
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.errors import ConfigError
from fpo_core.events import Sink, progress, silent
from fpo_core.loss.metrics import preference_metrics
from fpo_core.loss.scores import Scores, join
from fpo_core.train.paired_data import RunData, spread


def check_judged(config: TrainConfig, valid: TokenisedPairs | None) -> None:
    """Raise ConfigError where a setting asks for held-out pairs and there are none."""
    for name in ("early_stopping", "best_metric"):
        value = getattr(config, name)
        if valid is None and value != getattr(LoopConfig, name):
            raise ConfigError(
                f"{name} is {value}, but no pairs are held out to judge by: set valid_fraction "
                f"(such as 0.05), give a validation file, or leave {name} out"
            )


def score_pairs(
    policy: Policy,
    data: RunData,
    split: TokenisedPairs,
    objective: ObjectiveConfig,
    *,
    pairs: int,
    tokens_per_batch: int,
    kl: bool = False,
    emit: Sink = silent,
) -> tuple[Scores, np.ndarray]:
    """Scores of at most `pairs` pairs spread over a split, and their (2b,) stored logps.

    Processes share the batches, and all get all scores; `emit` hears of each batch.
    """
    rows = spread(len(split), pairs)
    group = data.group
    plan = scoring_batches(split.lengths()[rows], tokens_per_batch)
    parts: list[Scores] = []
    planned = plan[group.rank :: group.size]
    for i, places in enumerate(planned, 1):
        batch, reference = data.batch(split, rows[places])
        parts.append(policy.score(batch, reference, objective, kl=kl).without_pooled())
        progress(emit, "held-out pairs: batch", i, len(planned))
    local = join(parts) if parts else None
    owners = [joined(plan[rank :: group.size]) for rank in range(group.size)]
    return gather_scores(group, local, owners), data.reference_logps(split, rows)


def validate(
    policy: Policy,
    data: RunData,
    objective: ObjectiveConfig,
    *,
    pairs: int,
    tokens_per_batch: int,
    emit: Sink = silent,
) -> dict[str, float]:
    """Metrics of the validation pairs under the prefix `eval_`; empty where there are none."""
    if data.valid is None:
        return {}
    scores, logps = score_pairs(
        policy,
        data,
        data.valid,
        objective,
        pairs=pairs,
        tokens_per_batch=tokens_per_batch,
        emit=emit,
    )
    metrics = preference_metrics(scores, logps, objective)
    return {f"eval_{name}": value for name, value in metrics.items()}
