"""The first 20 steps in the quickstart's world: MLX and torch lose the same (bar 4)."""

import os

import numpy as np
import pytest

from fpo_core.config import ObjectiveConfig, OptimiserConfig
from fpo_core.data.batches import collate
from fpo_core.loss.dense import ReferenceBatch
from fpo_core.loss.metrics import preference_metrics
from tests.backends.support import reference_of
from tests.helpers import BACKENDS

STEPS, PAIRS = 20, 2
SETTINGS = {
    "fpo": {"alpha": 0.5, "beta": 2.0, "k": 50},
    "dpo-norm": {"beta": 2.0},
    "dpo": {"beta": 0.5, "rpo_alpha": 0.5},
    "simpo": {},
    "simpo-kl": {"label_smoothing": 0.1},
    "tdpo1": {"beta": 0.5},
    "tdpo2": {"beta": 0.5},
    "discopop": {},
}
SPECIAL = tuple(range(7))
LEARNING_RATE = {"lora": 1e-3, "dora": 1e-3, "full": 1e-4}
"""Ten times the defaults. Far above, rounding decides which features fire and steps diverge."""
CASES = [("lora", name) for name in SETTINGS] + [
    ("dora", "fpo"),
    ("full", "fpo"),
    ("full", "tdpo2"),
]


def run(make_policy, world, backend, kind, objective, references):
    """Loss, gradient norm and constraint of each step; the reference is torch's."""
    folder, pairs, sae = world
    policy = make_policy(
        backend, folder, sae=sae, hook=str(sae.hook), untrained=SPECIAL, fine_tune_type=kind
    )
    batches = [collate(pairs, range(i * PAIRS, (i + 1) * PAIRS)) for i in range(STEPS)]
    if not references:
        references += [reference_of(policy, batch) for batch in batches]
    if objective.needs_kl:
        policy.set_reference(policy.trained())
    policy.prepare_training(OptimiserConfig())
    rows = []
    for batch, reference in zip(batches, references, strict=True):
        scores = policy.accumulate(batch, reference, objective, 1 / PAIRS)
        found = preference_metrics(scores, reference.logps, objective)
        norm = policy.apply_gradients(LEARNING_RATE[kind], 1.0)
        assert (scores.d is not None) == (objective.objective == "fpo")
        rows.append((found["loss"], norm, found["fpo/delta"]))
    return np.array(rows)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_losses_agree_over_twenty_steps(make_policy, world, kind, name):
    objective = ObjectiveConfig(objective=name, **SETTINGS[name])
    references: list[ReferenceBatch] = []
    torch, mlx = (run(make_policy, world, b, kind, objective, references) for b in BACKENDS)
    known = np.abs(torch) > 1e-6
    apart = np.abs(mlx / np.where(known, torch, 1) - 1).max(0, where=known, initial=0)
    if "FPO_SHOW" in os.environ:
        print(f"{kind} {name}: apart {apart}, torch {torch[[0, -1]].tolist()}")
    assert torch[0, 1] > 1e-3, "no gradient at the first step"
    assert np.ptp(torch[:, 0]) > 1e-3, "nothing moved: the comparison would be empty"
    assert (torch[-1, 2] != 0) == (objective.constraint_weight > 0)
    assert apart[0] < 1e-4
