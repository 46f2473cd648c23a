"""The floor of D that the check before step 1 takes."""

import dataclasses

import numpy as np
import pytest

from fpo_core.backend.reference_weights import as_reference
from fpo_core.errors import StoreError
from fpo_core.sae.hook import Hook
from fpo_core.sae.taps import Features
from fpo_core.train.step0 import nudged
from tests.backends.runs import run_tiny, settings, train_on
from tests.backends.support import HIDDEN, UNTRAINED
from tests.helpers import BACKENDS, random_pairs, random_sae


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_bfloat16_the_floor_is_what_rounding_makes_of_d(tiny, tmp_path, backend):
    def floor(dtype):
        told = []
        changes = {"dtype": dtype, "iters": 1}
        config = settings(tiny, tmp_path / dtype, backend=backend, **changes)
        run_tiny(config, tmp_path / f"{dtype}-store", emit=told.append)
        (step0,) = (event for event in told if event.kind == "step0")
        return step0.values["fpo/d_floor"]

    exact, rounded = floor("float32"), floor("bfloat16")
    assert 0 <= exact < 1e-9
    assert 1e-7 < rounded < 1e-2


@pytest.mark.parametrize("backend", BACKENDS)
def test_nudged_weights_are_put_back(make_policy, backend):
    policy = make_policy(backend)
    before = policy.trained()
    with nudged(policy, seed=1):
        inside = policy.trained()
    after = policy.trained()
    for name, weights in before.items():
        assert 0 < np.abs(inside[name] - weights).max() < 1e-3
        np.testing.assert_array_equal(after[name], weights)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_reference_without_virtual_tokens_has_nothing_to_nudge(make_policy, backend):
    policy = make_policy(backend, fine_tune_type="prefix")
    with as_reference(policy), nudged(policy, seed=1):
        assert not any(weights.size for weights in policy.trained().values())


@pytest.mark.parametrize("backend", BACKENDS)
def test_weighted_features_that_the_cap_cut_off_are_named(tiny, tmp_path, backend):
    config = settings(tiny, tmp_path / "run", backend=backend, feature_cap=2, feature_weights="w")
    sae = random_sae(HIDDEN)
    hook = Hook.parse("blocks.1.hook_resid_post")
    tap = Features.of(sae, hook, UNTRAINED, np.ones(sae.d_sae, np.float32))
    with pytest.raises(StoreError, match="raise feature_cap and build the store"):
        train_on(config, random_pairs(8, seed=1), None, tap, tmp_path / "store")


@pytest.mark.parametrize("scale", [1e-3, 100.0])
@pytest.mark.parametrize("normalize", [True, False])
def test_the_check_of_d_does_not_depend_on_the_scale_of_features(tiny, tmp_path, normalize, scale):
    """Rounding passes at any scale, and a reference that was cut off is found at any."""
    sae = random_sae(HIDDEN)
    scaled = {name: getattr(sae, name) * np.float32(scale) for name in ("W_enc", "b_enc")}
    sae = dataclasses.replace(sae, **scaled)
    tap = Features.of(sae, Hook.parse("blocks.1.hook_resid_post"), UNTRAINED)

    def check(store, **changes):
        given = {"iters": 1, "objective": "dpo-norm", "beta": 0.1, "alpha": None}
        given |= {"normalize_d": normalize} | changes
        name = given.get("dtype", "float32")
        config = settings(tiny, tmp_path / store / name, backend="torch", **given)
        train_on(config, random_pairs(8, seed=1), None, tap, tmp_path / f"{store}-store")

    check("whole")
    check("whole", dtype="bfloat16")
    with pytest.raises(StoreError, match="on 4 of 4 sampled pairs"):
        check("cut", feature_cap=2)
