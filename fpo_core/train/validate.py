"""Validation: scores and metrics of held-out pairs."""

from dataclasses import dataclass

import numpy as np

from fpo_core.backend.policy import Policy
from fpo_core.backend.process_group import scored_together
from fpo_core.config import LoopConfig, ObjectiveConfig, TrainConfig
from fpo_core.data.batching import scoring_batches
from fpo_core.data.token_store import Int64s, TokenisedPairs
from fpo_core.errors import ConfigError
from fpo_core.events import Sink, progress, silent
from fpo_core.loss.metrics import preference_metrics
from fpo_core.loss.scores import Scores
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


SHARE = 0.1
"""Of the work of training, what validation may take where `steps_per_eval` is not set."""
FEWEST = 16
"""Pairs below which a validation says nothing."""
_STEP_COST = 3
"""Forward and backward of a pair, in forward passes."""


@dataclass(frozen=True)
class ValidationPlan:
    """When to validate, and on how many pairs: the same for the same run on any machine."""

    every: int
    """Steps between validations; the start and the last step are validated too."""
    pairs: int
    times: int

    @classmethod
    def of(cls, held_out: int, steps: int, config: TrainConfig) -> "ValidationPlan":
        """Ten validations of `val_pairs`, or fewer, or shorter, so that they take `SHARE`."""
        pairs = min(held_out, config.val_pairs)
        every = config.steps_per_eval
        if every is None:
            # Counted in pairs and not in seconds: a resumed run must validate at the same steps.
            trained = steps * config.batch_size * config.grad_accumulation_steps
            budget = int(SHARE * _STEP_COST * trained)
            # Patience counts validations: it needs all ten of them, on fewer pairs each.
            patient = config.early_stopping is not None
            times = 10 if patient else min(10, max(1, budget // max(1, pairs) - 1))
            pairs = min(pairs, max(FEWEST, budget // (times + 1)))
            every = max(1, -(-steps // times) if times < 10 else steps // 10)
        return cls(every, pairs, 1 + -(-steps // every) if held_out else 0)


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
    plan = scoring_batches(split.lengths()[rows], tokens_per_batch, split.prompts(rows))

    def score(places: Int64s) -> Scores:
        batch, reference = data.batch(split, rows[places])
        return policy.score(batch, reference, objective, kl=kl).without_pooled()

    def done(number: int, count: int) -> None:
        progress(emit, "held-out pairs: batch", number, count)

    scores = scored_together(data.group, plan, score, done, even=policy.info.sharded)
    return scores, data.reference_logps(split, rows)


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
