"""Adapters on quantised bases: MLX trains them, and what cannot be is refused in a sentence."""

import math

import numpy as np
import pytest

from fpo_core.config import OptimiserConfig
from fpo_core.errors import ModelError
from fpo_core.loss.finite_difference import slope
from fpo_core.loss.metrics import pair_losses
from fpo_core.models.folder import ModelFolder
from tests.backends.families import write_family, write_quantised
from tests.backends.support import OBJECTIVE, gradients, reference_of
from tests.helpers import random_batch


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A tiny Llama, and the same in 4 bits."""
    folder = tmp_path_factory.mktemp("bases")
    plain = write_family("llama", folder / "plain")
    return plain, write_quantised(plain, folder / "quantised")


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_mlx_trains_adapters_on_a_quantised_base(make_policy, bases, kind):
    plain, quantised = (make_policy("mlx", f, fine_tune_type=kind) for f in bases)
    assert quantised.info.quantisation is not None
    assert quantised.info.trained_parameters == plain.info.trained_parameters
    batch = random_batch(4)
    reference = reference_of(quantised, batch)
    assert np.abs(reference.logps - reference_of(plain, batch).logps).min() > 1e-4
    scores = quantised.score(batch, reference, OBJECTIVE)
    losses = pair_losses(scores, reference.logps, OBJECTIVE)
    np.testing.assert_allclose(losses, math.log(2), atol=1e-5)
    found = gradients(quantised, [(batch, reference)])
    assert all(np.abs(g).max() > 0 for name, g in found.items() if name.endswith("lora_B"))
    before = quantised.trained()
    quantised.prepare_training(OptimiserConfig())
    for _ in range(3):
        scores = quantised.accumulate(batch, reference, OBJECTIVE, 0.25)
        quantised.apply_gradients(1e-2, 1.0)
    assert pair_losses(scores, reference.logps, OBJECTIVE).mean() < math.log(2) - 1e-3
    assert all((w != before[name]).any() for name, w in quantised.trained().items())


def test_magnitudes_are_norms_of_the_dequantised_rows(make_policy, bases):
    plain, quantised = (make_policy("mlx", f, fine_tune_type="dora").trained() for f in bases)
    names = [name for name in plain if name.endswith("magnitude_vector")]
    apart = max(np.abs(quantised[name] / plain[name] - 1).max() for name in names)
    assert 1e-4 < apart < 0.2  # other weights, but not others of another size


def test_full_training_of_quantised_weights_is_refused(make_policy, bases):
    assert ModelFolder(bases[1], "").quantisation is not None
    with pytest.raises(ModelError, match="the model's weights are quantised and have no gradient"):
        make_policy("mlx", bases[1], fine_tune_type="full")


def test_torch_refuses_a_base_quantised_for_mlx(make_policy, bases):
    with pytest.raises(ModelError, match=r"quantised for MLX.*use the mlx backend"):
        make_policy("torch", bases[1])


def test_dora_on_three_bits_is_refused(make_policy, bases, tmp_path):
    odd = write_quantised(bases[0], tmp_path / "odd", bits=3)
    make_policy("mlx", odd)
    with pytest.raises(ModelError, match="quantised to 3 bits, which mlx-lm's DoRA cannot hold"):
        make_policy("mlx", odd, fine_tune_type="dora")


def test_lozo_trains_adapters_on_a_quantised_base(make_policy, bases):
    """A step down a batch's own slope, found by scoring alone, lowers its loss."""
    policy = make_policy("mlx", bases[1], zeroth_order=True)
    batch = random_batch(4)
    reference = reference_of(policy, batch)
    policy.prepare_training(OptimiserConfig(optimizer="lozo"))
    losses = []
    for _ in range(20):
        sides = []
        for sign in (1, -1):
            with policy.perturbed(sign):
                sides.append(policy.score(batch, reference, OBJECTIVE))
        policy.apply_slope(slope(*sides, reference.logps, OBJECTIVE, 1e-3), 3e-3, 1.0)
        losses.append(pair_losses(sides[0], reference.logps, OBJECTIVE).mean())
    assert losses[0] == pytest.approx(math.log(2), abs=1e-2)
    assert np.mean(losses[-5:]) < math.log(2) - 1e-3
