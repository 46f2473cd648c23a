"""The first 20 steps in the quickstart's world: MLX and torch lose the same (bar 4)."""

import os

import numpy as np
import pytest

from fpo_core.config import ObjectiveConfig, OptimiserConfig
from fpo_core.data.batches import collate
from fpo_core.metrics import preference_metrics
from fpo_core.scoring import ReferenceBatch
from tests.backends.support import reference_of
from tests.helpers import BACKENDS

STEPS, PAIRS = 20, 2
OBJECTIVE = ObjectiveConfig(alpha=0.5, beta=2.0, k=50)
SPECIAL = tuple(range(7))
LEARNING_RATE = {"lora": 1e-3, "dora": 1e-3, "full": 2e-4}
"""Ten times the defaults. Far above, rounding decides which features fire and steps diverge."""


def losses(make_policy, world, backend, kind, references):
    """Loss, gradient norm and D of each step; the reference is torch's, for both."""
    folder, pairs, sae = world
    policy = make_policy(
        backend, folder, sae=sae, hook=str(sae.hook), untrained=SPECIAL, fine_tune_type=kind
    )
    batches = [collate(pairs, range(i * PAIRS, (i + 1) * PAIRS)) for i in range(STEPS)]
    if not references:
        references += [reference_of(policy, batch) for batch in batches]
    policy.prepare_training(OptimiserConfig())
    rows = []
    for batch, reference in zip(batches, references, strict=True):
        scores = policy.accumulate(batch, reference, OBJECTIVE, 1 / PAIRS)
        found = preference_metrics(scores, reference.logps, OBJECTIVE)
        norm = policy.apply_gradients(LEARNING_RATE[kind], 1.0)
        rows.append((found["loss"], norm, found["fpo/d_rejected"], found["fpo/delta"]))
    return np.array(rows)


@pytest.mark.parametrize("kind", LEARNING_RATE)
def test_losses_agree_over_twenty_steps(make_policy, world, kind):
    references: list[ReferenceBatch] = []
    torch, mlx = (losses(make_policy, world, b, kind, references) for b in BACKENDS)
    apart = np.abs(mlx / torch - 1).max(0, where=np.abs(torch) > 1e-6, initial=0)
    if "FPO_SHOW" in os.environ:
        print(f"{kind}: apart {apart}, torch {torch[[0, -1]].tolist()}")
    assert torch[0, 0] == pytest.approx(np.log(2), abs=1e-4)
    assert mlx[0, 0] == pytest.approx(np.log(2), abs=1e-4)
    assert np.ptp(torch[:, 0]) > 1e-3, "nothing moved: the comparison would be empty"
    assert torch[-1, 2] > 0, "the constraint was never on"
    assert apart[0] < 1e-4
