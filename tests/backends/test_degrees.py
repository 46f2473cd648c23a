"""SPO's degrees on both backends: packed as plain, one as the other, parts as the whole."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fpo_core.adapters.reader import load_adapter
from fpo_core.config import ObjectiveConfig, OptimiserConfig, StepConfig
from fpo_core.loss.degrees import DEGREE_HEAD
from tests.backends.runs import degraded, run_tiny, settings
from tests.backends.support import (
    difference,
    gradients,
    part,
    part_of_reference,
    reference_of,
    shaken,
)
from tests.helpers import BACKENDS, random_batch

OBJECTIVE = ObjectiveConfig(beta=0.5, alpha=2.0, k=8, degree_weight=0.5)


@pytest.fixture(scope="module")
def policies(make_policy):
    """Packed and plain policies of both backends, shaken alike, their heads too."""
    opened = {
        (backend, plain): make_policy(backend, degree_levels=4, step=StepConfig(plain=plain))
        for backend in BACKENDS
        for plain in (False, True)
    }
    for policy in opened.values():
        assert (policy.trained()[DEGREE_HEAD] == 0).all()
        policy.load_trained(shaken(policy.trained(), 0.1))
    return opened


def test_every_path_computes_the_same(policies):
    batch = degraded(random_batch(4))
    expected = None
    for (backend, plain), policy in policies.items():
        assert policy.info.fallback is None
        reference = reference_of(policy, batch)
        scores = policy.score(batch, reference, OBJECTIVE)
        gradient = gradients(policy, [(batch, reference)], OBJECTIVE)
        assert np.abs(gradient[DEGREE_HEAD]).max() > 1e-3
        if expected is None:
            expected = scores, gradient
            continue
        np.testing.assert_allclose(scores.degree, expected[0].degree, rtol=1e-4)
        np.testing.assert_array_equal(scores.degree_hit, expected[0].degree_hit)
        assert difference(gradient, expected[1]) < 1e-4, (backend, plain)


def test_the_policy_learns_from_it_too(policies):
    """At the reference, the head's loss is all that moves the chosen side's adapters."""
    policy = policies["torch", False]
    batch = degraded(random_batch(4))
    reference = reference_of(policy, batch)
    with_head = gradients(policy, [(batch, reference)], OBJECTIVE)
    bare = dataclasses.replace(batch, degraded=None)
    without = gradients(policy, [(bare, reference)], OBJECTIVE)
    assert (without[DEGREE_HEAD] == 0).all()
    moved = [name for name in without if np.abs(with_head[name] - without[name]).max() > 1e-6]
    assert len(moved) == len(without)


def test_accumulation_is_the_large_batch(policies, backend):
    policy, batch = policies[backend, False], random_batch(4)
    reference = reference_of(policy, batch)
    whole = gradients(policy, [(degraded(batch), reference)], OBJECTIVE)
    halves = [
        (degraded(part(batch, p)), part_of_reference(reference, batch, p)) for p in ([0, 1], [2, 3])
    ]
    assert difference(gradients(policy, halves, OBJECTIVE), whole) < 1e-5


def test_backends_agree_over_twenty_steps(policies):
    batches = [degraded(random_batch(2, seed), seed) for seed in range(20)]
    references = [reference_of(policies["torch", False], batch) for batch in batches]
    start = policies["torch", False].trained()
    lost = []
    for backend in BACKENDS:
        policy = policies[backend, False]
        policy.load_trained(start)
        policy.prepare_training(OptimiserConfig())
        degrees = []
        for batch, reference in zip(batches, references, strict=True):
            degrees.append(policy.accumulate(batch, reference, OBJECTIVE, 0.5).degree.mean())
            policy.apply_gradients(3e-3, 1.0)
        lost.append(degrees)
        policy.load_trained(start)
    np.testing.assert_allclose(lost[1], lost[0], rtol=1e-4)
    assert np.mean(lost[0][-5:]) < np.mean(lost[0][:5])


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_result_leaves_the_head_behind(tiny, tmp_path, kind):
    options = {"degree_weight": 0.5, "fine_tune_type": kind, "iters": 2, "steps_per_eval": 2}
    config = settings(tiny, tmp_path / "run", backend="mlx", **options)
    run_tiny(config, tmp_path / "store")
    if kind == "lora":
        assert DEGREE_HEAD not in load_adapter(tmp_path / "run", 3).weights
    else:
        assert b"degree_head" not in Path(tmp_path / "run" / "model.safetensors").read_bytes()
