"""How much of a step is the constraint's: ‖∇ of its part‖ / ‖∇ of the preference's part‖.

The ratio of values α·D / |Δm − Δr| says little of the direction of a step. Both gradients are exact
parts of the loss's own, at its own weights σ(−u); they are taken on training pairs spread over the
data, the same each time, at validations.
"""

import math
from dataclasses import dataclass
from typing import Self

from fpo_core.backend.policy import Policy
from fpo_core.config import TrainConfig
from fpo_core.loss.objectives import Part
from fpo_core.train.paired_data import RunData, spread
from fpo_core.train.schedule import step_seed

PAIRS = 8
"""Most pairs of one measurement."""
COST = 0.02
"""Of the work of training, what measuring may take."""
_FACTOR = 2.0
"""The most that α changes by at once, either way."""
_RANGE = 100.0
"""The most that α leaves its first value by, either way."""


@dataclass(frozen=True)
class SharePlan:
    """When the share is measured, and on how many pairs: the same on any machine."""

    every: int
    """Every so many validations, counted from the last one back; 0 is never."""
    pairs: int

    @classmethod
    def of(cls, rows: int, steps: int, validations: int, config: TrainConfig) -> Self:
        """Within `COST`, but at least once in a run, and at each validation to hold a share."""
        unconstrained = config.objective_entry.drift is None or config.constraint_weight == 0
        if unconstrained or config.zeroth_order:
            return cls(0, 0)
        of_step = config.batch_size * config.grad_accumulation_steps
        pairs = min(PAIRS, of_step, rows)
        # Two gradients, each as much work as the pairs have in a step.
        times = max(1, int(COST * steps * of_step / (2 * pairs)))
        every = max(1, -(-validations // times))
        return cls(1 if config.constraint_share is not None else every, pairs)

    def is_due(self, left: int) -> bool:
        """Whether to measure when so many validations are still to come."""
        return self.every > 0 and left % self.every == 0


def measure_share(
    policy: Policy, data: RunData, config: TrainConfig, pairs: int, step: int
) -> float:
    """‖α∇D‖ / ‖∇preference‖ on `pairs` training pairs; 0 where nothing has drifted yet, NaN where
    the preference has no gradient left.

    Takes no step, and leaves no gradient behind; every process of a run must call it.
    """
    norms = [
        _norm(policy, data, config, pairs, step, part) for part in ("constraint", "preference")
    ]
    return norms[0] / norms[1] if norms[1] > 0 else math.nan


def _norm(
    policy: Policy, data: RunData, config: TrainConfig, pairs: int, step: int, part: Part
) -> float:
    rows, group = spread(len(data.train), pairs), data.group
    # No pass holds more pairs than one of training, which is what the memory was found to hold.
    at_once = config.batch_size * group.size
    for start in range(0, len(rows), at_once):
        local = rows[start : start + at_once][group.rank :: group.size]
        if len(local) or policy.info.sharded:  # there, all processes take part in a pass
            batch, reference = data.batch(data.train, local if len(local) else rows[:1])
            policy.seed(step_seed(config.seed, step, start + group.rank))
            weight = 1 / len(rows) if len(local) else 0.0
            policy.accumulate(batch, reference, config, weight, part)
    return policy.gradient_norm()


def adapted(alpha: float, share: float, target: float, start: float) -> float:
    """α after a measured share: towards the target by the root of what is missing, slowly.

    The share is about proportional to α at once, but D answers to α over many steps. It stays
    where there is no share to go by.
    """
    if not math.isfinite(share) or share <= 0:
        return alpha
    factor = min(_FACTOR, max(1 / _FACTOR, math.sqrt(target / share)))
    return min(start * _RANGE, max(start / _RANGE, alpha * factor))
