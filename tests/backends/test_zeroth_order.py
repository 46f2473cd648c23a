"""LOZO on both frameworks: its slope is the gradient's, the weights come back, backends agree."""

import dataclasses
import os

import numpy as np
import pytest

from fpo_core.backend.directions import Dense, LowRank, matrix_shape
from fpo_core.config import OptimiserConfig
from fpo_core.loss.finite_difference import slope
from tests.backends.runs import log_of, run_tiny, settings
from tests.backends.support import (
    OBJECTIVE,
    difference,
    gradients,
    reference_of,
    shaken,
)
from tests.helpers import BACKENDS, random_batch

BATCH = random_batch(4)
LOZO = OptimiserConfig(optimizer="lozo", zo_epsilon=1e-4)


def moved_policy(make_policy, backend, kind, **options):
    """A policy apart from its reference, so that D and its gradient are not 0."""
    policy = make_policy(backend, fine_tune_type=kind, zeroth_order=True, **options)
    reference = reference_of(policy, BATCH)
    policy.load_trained(shaken(policy.trained(), 0.02))
    return policy, reference


def slope_of(policy, reference, objective, epsilon):
    sides = []
    for sign in (1, -1):
        with policy.perturbed(sign):
            sides.append(policy.score(BATCH, reference, objective))
    return slope(*sides, np.asarray(reference.logps), objective, epsilon)


def along(policy, gradient):
    """⟨gradient, Z⟩ of the next step's direction."""
    total = 0.0
    for name, z in policy._optimizer._directions().items():
        shape = matrix_shape(gradient[name].shape)
        matrix = z.left @ z.right.T if isinstance(z, LowRank) else z.rows(0, shape[0])
        total += (matrix.astype(np.float64) * gradient[name].reshape(shape)).sum()
    return total


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_slope_is_autograds(make_policy, backend, kind):
    """Bar: rel. 1e-3, along U Vᵀ, of FPO with its stop-gradient on.

    Not of DoRA, whose gradient takes the norm of W + BA for constant, which a difference does not.
    """
    policy, reference = moved_policy(make_policy, backend, kind)
    gradient = gradients(policy, [(BATCH, reference)], OBJECTIVE)
    freed = dataclasses.replace(OBJECTIVE, stop_gradient=False)
    other = gradients(policy, [(BATCH, reference)], freed)
    policy.prepare_training(LOZO)
    expected, trap = along(policy, gradient), along(policy, other)
    found = slope_of(policy, reference, OBJECTIVE, LOZO.zo_epsilon)
    if "FPO_SHOW" in os.environ:
        print(f"{backend} {kind}: {found / expected - 1:.1e}, without sg {trap / expected - 1:.1e}")
    assert found == pytest.approx(expected, rel=1e-3)
    assert abs(trap / expected - 1) > 1e-2, "the stop-gradient made no difference"
    assert slope_of(policy, reference, freed, LOZO.zo_epsilon) == pytest.approx(trap, rel=1e-3)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_step_is_along_its_direction(make_policy, backend, kind):
    """X ← X − η c U Vᵀ / r of matrices, − η c z of vectors."""
    policy, _ = moved_policy(make_policy, backend, kind)
    policy.prepare_training(LOZO)
    before, directions = policy.trained(), policy._optimizer._directions()
    policy.apply_slope(2.0, 0.01, 1e9)
    for name, weight in policy.trained().items():
        z = directions[name]
        step = z.rows(0, 1) if isinstance(z, Dense) else z.left @ z.right.T / z.left.shape[1]
        expected = before[name] - 0.02 * step.reshape(weight.shape)
        np.testing.assert_allclose(weight, expected, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_adapters_come_back_exactly(make_policy, backend, kind):
    policy, _ = moved_policy(make_policy, backend, kind)
    policy.prepare_training(LOZO)
    before = policy.trained()
    with policy.perturbed(1):
        assert difference(policy.trained(), before) > 0
    assert all((policy.trained()[name] == weight).all() for name, weight in before.items())


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-7), ("bfloat16", 2e-3)])
def test_whole_weights_come_back_but_for_rounding(make_policy, backend, dtype, bound):
    """Ten times there and back on either side; one rounding of bfloat16 is 2e-3 by itself."""
    policy = make_policy(backend, fine_tune_type="full", dtype=dtype, zeroth_order=True)
    policy.prepare_training(OptimiserConfig(optimizer="lozo"))
    before = policy.trained()
    for _ in range(10):
        for sign in (1, -1):
            with policy.perturbed(sign):
                assert difference(policy.trained(), before) > 1e-4
        policy.apply_slope(0.0, 0.0, 1.0)
    drift = difference(policy.trained(), before)
    assert drift < bound, drift


def test_steps_below_the_precision_of_bfloat16_add_up(make_policy, backend):
    """Stochastic rounding: the mean of 400 steps of a hundredth of a spacing is right."""
    policy = make_policy(backend, fine_tune_type="full", dtype="bfloat16", zeroth_order=True)
    policy.prepare_training(OptimiserConfig(optimizer="lozo", zo_rank=1))
    name = "model.layers.0.mlp.up_proj.weight"
    before = policy.trained()[name].astype(np.float64)
    ones = LowRank(np.ones((48, 1), np.float32), np.ones((32, 1), np.float32))
    for number in range(400):
        policy._trainable.move({name: ones}, 1e-5, number)
    moved = policy.trained()[name] - before
    error = moved.std() / moved.size**0.5
    assert abs(moved.mean() - 4e-3) < 4 * error
    assert error < 2e-4
    policy._trainable.move({name: ones}, 0.0, 1)
    np.testing.assert_array_equal(policy.trained()[name] - before, moved)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_both_backends_take_the_same_steps(tiny, tmp_path, kind):
    """Bar: the losses of 20 steps within 1e-4, a new V among them."""
    options = {"optimizer": "lozo-m", "zo_interval": 8, "iters": 20, "fine_tune_type": kind}
    options |= {"learning_rate": {"lora": 1e-2, "full": 1e-3}[kind], "steps_per_report": 1}
    losses, weights = [], []
    for backend in BACKENDS:
        config = settings(tiny, tmp_path / backend, backend=backend, **options)
        _, policy = run_tiny(config, tmp_path / "store")
        weights.append(policy.trained())
        events = [event for event in log_of(tmp_path / backend) if event["kind"] == "train"]
        losses.append(np.array([event["loss"] for event in events]))
    assert np.ptp(losses[0]) > 1e-2, "nothing moved: the comparison would be empty"
    apart = np.abs(losses[0] - losses[1]).max()
    if "FPO_SHOW" in os.environ:
        print(f"{kind}: losses {apart:.1e}, weights {difference(*weights):.1e}")
    assert len(losses[0]) == 20
    assert apart < 1e-4
    assert difference(*weights) < 1e-4
