"""Exponentials by hand, where MLX's own are slow, against NumPy's in float64."""

import mlx.core as mx
import numpy as np
import pytest

from fpo_mlx.exponential import by_hand, exp, sigmoid, tanh

X = np.concatenate([np.linspace(-86, 86, 100_001), np.linspace(-1e-3, 1e-3, 1001), [0.0]])
X = X.astype(np.float32)


@pytest.fixture(autouse=True)
def here_by_hand():
    if mx.metal.is_available():
        pytest.skip("Metal's own exponentials are fast, so these are not in use there")
    assert by_hand(mx.array(X))


def test_relative_precision():
    wide = X.astype(np.float64)
    np.testing.assert_allclose(np.array(exp(mx.array(X))), np.exp(wide), rtol=5e-6)
    near = np.abs(wide) < 1
    np.testing.assert_allclose(np.array(exp(mx.array(X)))[near], np.exp(wide[near]), rtol=3e-7)
    np.testing.assert_allclose(np.array(sigmoid(mx.array(X))), 1 / (1 + np.exp(-wide)), rtol=5e-6)
    np.testing.assert_allclose(np.array(tanh(mx.array(X))), np.tanh(wide), rtol=0, atol=3e-7)


def test_what_is_out_of_range():
    found = np.array(exp(mx.array([-np.inf, -1e4, 1e4, np.nan])))
    assert (found[:2] == 0).all()
    assert found[2] > 1e37
    assert np.isnan(found[3])


def test_other_precisions_are_the_librarys():
    x = mx.array([1.0, 2.0], mx.bfloat16)
    assert not by_hand(x)
    assert exp(x).dtype == mx.bfloat16
