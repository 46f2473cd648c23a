"""Every function of `Ops`, against arithmetic, on every framework and precision."""

import math

import numpy as np
import pytest

from fpo_core.arrays import numpy_ops
from fpo_core.arrays.ops import Ops
from tests.helpers import FRAMEWORKS, framework, gradient

RAMP = np.linspace(-3, 4, 24).reshape(2, 3, 4)


@pytest.fixture(params=FRAMEWORKS)
def fw(request):
    return framework(request.param)


def functions():
    return [name for name in vars(Ops) if not name.startswith("_")]


def test_every_backend_has_every_function(fw):
    assert len(functions()) == 16
    for name in functions():
        assert callable(getattr(fw.xp, name)), name


def test_as_float_widens_halves_and_integers_and_keeps_the_rest(fw):
    assert fw.numpy(fw.xp.as_float(fw.array(RAMP))).dtype == fw.dtype
    assert fw.numpy(fw.xp.as_float(fw.array([1, 2]))).dtype == np.float32
    assert fw.numpy(fw.xp.as_float(fw.array(RAMP) > 0)).dtype == np.float32


def test_asarray_keeps_type_and_values(fw):
    for dtype in (np.float32, np.int32, np.uint8):
        out = fw.numpy(fw.xp.asarray(np.arange(6, dtype=dtype), fw.array(RAMP)))
        assert out.dtype == dtype
        assert out.tolist() == [0, 1, 2, 3, 4, 5]


def test_where_with_an_array_and_with_a_number(fw):
    x = fw.array(RAMP)
    fw.close(fw.xp.where(x > 0, x, 0.0), np.maximum(RAMP, 0))
    fw.close(fw.xp.where(x > 0, x, -x), np.abs(RAMP))
    assert fw.numpy(fw.xp.where(x > 0, x, 0.0)).dtype == fw.dtype


def test_exp_sqrt_relu(fw):
    x = fw.array(RAMP)
    fw.close(fw.xp.exp(x), np.exp(RAMP), scale=math.exp(4))
    fw.close(fw.xp.sqrt(abs(x)), np.sqrt(np.abs(RAMP)))
    fw.close(fw.xp.relu(x), np.maximum(RAMP, 0))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concatenate(fw, axis):
    x = fw.array(RAMP)
    fw.close(fw.xp.concatenate([x, x * 2], axis), np.concatenate([RAMP, RAMP * 2], axis))


def test_logsumexp_and_its_extremes(fw):
    # log(e^a + e^a + e^a) = a + log 3, whatever a is
    for a in (-1000.0, 0.0, 1000.0):
        fw.close(fw.xp.logsumexp(fw.array([[a, a, a]]), -1), [a + math.log(3)], scale=1000)
    expected = np.log(np.exp(RAMP).sum(1))
    fw.close(fw.xp.logsumexp(fw.array(RAMP), 1), expected)


def test_log_sigmoid_and_its_extremes(fw):
    found = fw.xp.log_sigmoid(fw.array([-1000.0, -1.0, 0.0, 1.0, 1000.0]))
    expected = [-1000.0, -math.log1p(math.e), -math.log(2), -math.log1p(1 / math.e), 0.0]
    fw.close(found, expected)


@pytest.mark.parametrize("name", ["torch64", "torch32", "mlx32"])
def test_log_sigmoid_has_a_finite_gradient_everywhere(name):
    fw = framework(name)
    found = gradient(fw, lambda x: fw.xp.log_sigmoid(x).sum(), [-1000.0, 0.0, 1000.0])
    np.testing.assert_allclose(found, [1.0, 0.5, 0.0], atol=1e-7)


def test_log1mexp_near_0_and_far_from_it(fw):
    """log(1 − e^−x) is log x for small x, and −e^−x for large x."""
    found = fw.xp.log1mexp(fw.array([-1e-6, -math.log(2), -0.5, -1.0, -30.0]))
    expected = [math.log(1e-6) - 5e-7, -math.log(2), math.log(-math.expm1(-0.5))]
    fw.close(found, [*expected, math.log1p(-math.exp(-1)), -math.exp(-30)])


@pytest.mark.parametrize("name", ["torch64", "torch32", "mlx32"])
def test_log1mexp_has_a_finite_gradient_on_both_branches(name):
    """−eˣ / (1 − eˣ)."""
    fw, x = framework(name), np.array([-1e-9, -1e-3, -0.69, -0.7, -5.0, -60.0])
    found = gradient(fw, lambda leaf: fw.xp.log1mexp(leaf).sum(), x)
    np.testing.assert_allclose(found, np.exp(x) / np.expm1(x), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_take_along_axis_with_either_integer(fw, dtype):
    indices = np.array([[[3], [0], [1]], [[2], [2], [0]]], dtype)
    found = fw.xp.take_along_axis(fw.array(RAMP), fw.array(indices), -1)
    expected = [[[RAMP[i, j, indices[i, j, 0]]] for j in range(3)] for i in range(2)]
    fw.close(found, expected)


def test_put_along_axis_writes_where_take_along_axis_reads(fw):
    x, indices = fw.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), fw.array([[2, 0], [1, 2]])
    found = fw.xp.put_along_axis(x, indices, fw.array([[7.0, 8.0], [9.0, 10.0]]), -1)
    fw.close(found, [[8, 2, 7], [4, 9, 10]])
    fw.close(x, [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize(("k", "expected"), [(1, [5, 0]), (2, [5, -1]), (3, [2, -2]), (4, [1, -9])])
def test_kth_largest_counts_ties(fw, k, expected):
    x = fw.array([[1.0, 5.0, 2.0, 5.0], [-9.0, -1.0, 0.0, -2.0]])
    found = fw.numpy(fw.xp.kth_largest(x, k))
    assert found.shape == (2, 1)
    assert found[:, 0].tolist() == expected


def test_top_indices_are_those_of_the_largest(fw):
    x = fw.array([[1.0, 5.0, 2.0, 4.0], [-9.0, -1.0, 0.0, -2.0]])
    found = np.sort(fw.numpy(fw.xp.top_indices(x, 2)))
    assert found.tolist() == [[1, 3], [1, 2]]
    assert np.sort(fw.numpy(fw.xp.top_indices(x, 4))).tolist() == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize("name", ["torch64", "mlx32"])
def test_stop_gradient_keeps_the_value_and_drops_the_gradient(name):
    fw = framework(name)
    found = gradient(fw, lambda x: (x * fw.xp.stop_gradient(x)).sum(), [2.0, -3.0])
    np.testing.assert_allclose(found, [2.0, -3.0])  # not 2x


@pytest.mark.parametrize("name", ["torch64", "torch32", "mlx32"])
def test_relu_has_no_gradient_at_zero(name):
    fw = framework(name)
    found = gradient(fw, lambda x: fw.xp.relu(x).sum(), [-1.0, 0.0, 2.0])
    assert found.tolist() == [0.0, 0.0, 1.0]


def test_numpy_logsumexp_needs_no_framework_to_be_exact():
    x = np.array([0.0, math.log(2), math.log(3)])
    assert numpy_ops.logsumexp(x, -1) == pytest.approx(math.log(6), abs=1e-15)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_largest(fw, axis):
    fw.close(fw.xp.largest(fw.array(RAMP), axis), RAMP.max(axis))
