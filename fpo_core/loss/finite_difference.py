"""The derivative of a loss along a direction, from its values on both sides."""

import types
from typing import Any

import numpy as np

from fpo_core.arrays import numpy_ops
from fpo_core.config import ObjectiveConfig
from fpo_core.loss.objectives import objective_losses
from fpo_core.loss.scores import Scores, chosen, join, rejected


def slope(
    plus: Scores,
    minus: Scores,
    reference_logps: np.ndarray,
    config: ObjectiveConfig,
    epsilon: float,
) -> float:
    """[L(θ + εZ) − L(θ − εZ)] / 2ε of the mean loss of b pairs, in float64.

    `plus` and `minus` are the pairs' scores there, `reference_logps` (2b,). What an objective puts
    under a stop-gradient is held at the mean of both sides, its value at θ up to O(ε²): a plain
    difference of losses would take its change for the parameters' and so, for FPO, differentiate
    α(D_l − sg D_w) on the chosen side too.
    """
    pairs = len(plus.logps) // 2
    both = join([plus, minus]).astype(np.float64)
    sides = chosen(reference_logps), rejected(reference_logps)
    logps = np.concatenate([side for side in sides for _ in range(2)]).astype(np.float64)
    losses = objective_losses(_holding_constants(pairs), both, logps, config)
    return float((losses[:pairs] - losses[pairs:]).mean()) / (2 * epsilon)


def _holding_constants(pairs: int) -> Any:
    """NumPy's operations on joined sides, where `stop_gradient` gives both their mean."""

    def stop_gradient(x: np.ndarray) -> np.ndarray:
        # (2b,) of pairs is plus, minus; (4b,) of sequences is chosen plus, chosen minus, rejected.
        sides = x.reshape(-1, 2, pairs)
        return np.broadcast_to(sides.mean(1, keepdims=True), sides.shape).reshape(x.shape)

    return types.SimpleNamespace(**(vars(numpy_ops) | {"stop_gradient": stop_gradient}))
