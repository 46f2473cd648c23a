"""Every objective under every link: MLX and torch lose the same, and so does a batch in parts."""

import json
import os

import numpy as np
import pytest

from fpo_core.config import LINKS, OBJECTIVES, ObjectiveConfig, OptimiserConfig
from fpo_core.loss.metrics import pair_losses
from tests.backends.every_loss import steps
from tests.backends.support import (
    difference,
    gradients,
    part,
    part_of_reference,
    reference_of,
    shaken,
)
from tests.backends.test_processes import together
from tests.helpers import BACKENDS, random_batch

STEPS = 20
EVERY = [
    (name, link)
    for name, row in OBJECTIVES.items()
    for link in ([None] if row.link or row.losses else LINKS)
]
CASES = [case for i, case in enumerate(EVERY) if case[0] == "fpo" or case[1] is None or i % 10 == 0]
"""Every link and every objective; FPO_EVERY=1 takes each with each."""
if "FPO_EVERY" in os.environ:
    CASES = EVERY


def objective_of(name, link):
    """β is that of means where it may be: on sums of some tokens e^−u must not run away."""
    beta = {"beta": 0.2} if "beta" in OBJECTIVES[name].coefficients else {}
    return ObjectiveConfig(objective=name, link=link, k=8, **beta)


@pytest.fixture(scope="module")
def policies(make_policy):
    """Both backends' policies with their start, which each test begins from, and references."""
    opened = {backend: make_policy(backend) for backend in BACKENDS}
    batches = [random_batch(2, seed) for seed in range(STEPS)]
    references = [reference_of(opened["torch"], batch) for batch in batches]
    starts = {backend: policy.trained() for backend, policy in opened.items()}
    return opened, starts, list(zip(batches, references, strict=True))


def losses_of(policy, start, batches, objective):
    """The loss and gradient norm of each step, from where u is not 0: there padll has a step."""
    policy.load_trained(shaken(start, 0.02))
    policy.set_reference(start)
    policy.prepare_training(OptimiserConfig())
    rows = []
    for batch, reference in batches:
        scores = policy.accumulate(batch, reference, objective, 1 / batch.pairs)
        loss = pair_losses(scores, reference.logps, objective).mean()
        rows.append((loss, policy.apply_gradients(1e-3, 1.0)))
    return np.array(rows)


@pytest.mark.parametrize(("name", "link"), CASES)
def test_backends_agree_over_twenty_steps(policies, name, link):
    opened, starts, batches = policies
    objective = objective_of(name, link)
    torch, mlx = (losses_of(opened[b], starts[b], batches, objective) for b in BACKENDS)
    if "FPO_SHOW" in os.environ:
        print(f"{name} {link}: {abs(mlx - torch).max(0)}, torch {torch[[0, -1]].tolist()}")
    assert (torch[:, 1] > 0).any()
    assert np.ptp(torch[:, 0]) > 1e-4, "nothing moved: the comparison would be empty"
    # Against losses of the size of log 2: those of adaptive scaling begin near 0.
    np.testing.assert_allclose(mlx[:, 0], torch[:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "link"), CASES)
def test_accumulation_is_the_large_batch(policies, name, link):
    opened, starts, _ = policies
    objective, batch = objective_of(name, link), random_batch(4)
    for backend, policy in opened.items():
        policy.load_trained(starts[backend])
        policy.set_reference(starts[backend])
        reference = reference_of(policy, batch)
        policy.load_trained(shaken(starts[backend], 0.05))
        whole = gradients(policy, [(batch, reference)], objective)
        halves = [
            (part(batch, p), part_of_reference(reference, batch, p)) for p in ([0, 1], [2, 3])
        ]
        assert difference(gradients(policy, halves, objective), whole) < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_processes_are_one(backend, tiny, tmp_path):
    """Of every objective under every link, by one pair of processes."""
    cases = {
        f"{name} {link}": {"alpha": None, **vars(objective_of(name, link))} for name, link in CASES
    }
    cases["spo"] = {"degree_weight": 0.5}
    out = tmp_path / "two.json"
    places = {"model": str(tiny), "store": str(tmp_path / "two"), "out": str(out)}
    ran = together(backend, module="every_loss", cases=cases, **places)
    assert out.is_file(), ran
    two, one = json.loads(out.read_text()), steps(backend, tiny, tmp_path / "one", cases)
    furthest = 0.0
    for name, expected in one.items():
        assert expected[0] != expected[1], "nothing moved: the comparison would be empty"
        apart = np.abs(np.subtract(two[name], expected)) / np.maximum(1, np.abs(expected))
        furthest = max(furthest, apart.max())
        assert apart.max() < 1e-5, name
    if "FPO_SHOW" in os.environ:
        print(f"{backend}: {len(one)} cases, at most {furthest:.1e} apart, relative above 1")
