"""Pooling, the union I_k and D (eq. 10), by hand and by property."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fpo_core.arrays import numpy_ops as xp
from fpo_core.sae.discrepancy import discrepancy, pool, straight_through, top_mask, union_mask
from tests.helpers import FRAMEWORKS, framework, gradient

SMALL = st.integers(-3, 3).map(float)
"""Few values, so that ties are common."""


def d_of(policy, reference, k, **options):
    d, size = discrepancy(xp, np.array([policy]), np.array([reference]), k, **options)
    return float(d[0]), int(size[0])


@pytest.mark.parametrize(
    ("values", "k", "kept"),
    [
        ([3, 1, 4, 2], 2, [0, 2]),
        ([2, 2, 2, 1], 2, [0, 1]),
        ([1, 5, 1, 1], 3, [0, 1, 2]),
        ([1, 5, 1, 7], 2, [1, 3]),
        ([0, 0, 0], 1, [0]),
        ([1, 2], 5, [0, 1]),
    ],
)
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_top_mask_breaks_ties_by_index(name, values, k, kept):
    fw = framework(name)
    mask = fw.numpy(top_mask(fw.xp, fw.array([np.array(values, float)]), k))
    assert np.flatnonzero(mask[0]).tolist() == kept


@given(npst.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=SMALL))
def test_top_mask_is_a_stable_sort(x):
    for k in (1, 2, x.shape[-1]):
        expected = np.zeros(x.shape, bool)
        order = np.argsort(-x, axis=-1, kind="stable")[:, :k]
        np.put_along_axis(expected, order, True, axis=-1)
        assert (top_mask(xp, x, k) == expected).all()


@given(npst.arrays(np.float64, (2, 7), elements=SMALL), st.integers(1, 9))
def test_the_choice_of_features_agrees_between_frameworks(pooled, k):
    expected = union_mask(xp, pooled[:1], pooled[1:], k)
    for name in ("torch32", "mlx32"):
        fw = framework(name)
        found = union_mask(fw.xp, fw.array(pooled[:1]), fw.array(pooled[1:]), k)
        assert (fw.numpy(found) == expected).all()


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_pool_divides_by_the_tokens_counted(name):
    fw = framework(name)
    features = fw.array([[[1.0, 10.0], [3.0, 20.0], [100.0, 100.0], [100.0, 100.0]]])
    found = pool(fw.xp, features, fw.array([[1.0, 1.0, 0.0, 0.0]]))
    fw.close(found, [[2.0, 15.0]])  # (1 + 3)/2 and (10 + 20)/2: not over the width of 4


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_completion_without_countable_tokens_pools_to_zero_and_has_no_d(name):
    fw = framework(name)
    pooled = pool(fw.xp, fw.array(np.ones((1, 3, 2))), fw.array(np.zeros((1, 3))))
    fw.close(pooled, [[0.0, 0.0]])
    d, size = discrepancy(fw.xp, pooled, pooled, 2)
    fw.close(d, [0.0])
    fw.close(size, [0.0])


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_d_by_hand(name):
    fw = framework(name)
    # top 2 of policy {1, 3}, of reference {0, 3}: I = {0, 1, 3}, feature 2 (0.5 apart) is outside
    policy = fw.array([[0.0, 3.0, 0.5, 2.0]])
    reference = fw.array([[4.0, 0.0, 1.0, 1.5]])
    d, size = discrepancy(fw.xp, policy, reference, 2)
    fw.close(d, [((0 - 4) ** 2 + (3 - 0) ** 2 + (2 - 1.5) ** 2) / 2])
    fw.close(size, [3.0])


def test_a_feature_that_the_policy_lost_costs():
    # The policy's own top 1 is feature 1; feature 0 is only the reference's.
    assert d_of([0.0, 3.0], [2.0, 0.0], 1) == (2.0**2 + 3.0**2, 2)


def test_a_feature_that_only_the_policy_has_costs():
    assert d_of([1.0, 3.0], [1.0, 0.0], 1) == (3.0**2, 2)


def test_features_that_never_fired_are_not_in_the_union():
    assert d_of([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], 2) == (0.0, 0)
    assert d_of([1.0, 0.0, 0.0], [1.0, 0.0, 0.0], 3) == (0.0, 1)


def test_signed_features_rank_by_magnitude():
    # |−5| and |4| lead; the middle feature (1 and 0) is outside.
    assert d_of([-5.0, 1.0, 0.0], [0.0, 0.0, 4.0], 1) == (25.0 + 16.0, 2)


def test_k_above_the_number_of_features_takes_all_and_still_divides_by_k():
    assert d_of([1.0, 2.0], [3.0, 0.0], 8) == ((4.0 + 4.0) / 8, 2)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_normalised_d_by_hand(name):
    fw = framework(name)
    policy, reference = fw.array([[0.0, 3.0, 0.5, 2.0]]), fw.array([[4.0, 0.0, 1.0, 1.5]])
    d, _ = discrepancy(fw.xp, policy, reference, 2, normalize=True)
    plain = (16 + 9 + 0.25) / 2
    mean_square = (16 + 0 + 2.25) / 3  # of the reference over I = {0, 1, 3}
    fw.close(d, [plain / mean_square])


def test_normalised_d_is_zero_where_the_reference_is_empty():
    assert d_of([1.0, 2.0], [0.0, 0.0], 2, normalize=True) == (0.0, 2)


@given(
    npst.arrays(np.float64, (2, 6), elements=st.floats(0, 4)), st.floats(0.1, 50), st.integers(1, 6)
)
def test_normalised_d_is_free_of_scale(pooled, scale, k):
    d, size = d_of(*pooled, k, normalize=True)
    scaled, scaled_size = d_of(*(pooled * scale), k, normalize=True)
    if size == scaled_size:  # rounding may merge two values into a tie
        assert scaled == pytest.approx(d, rel=1e-6, abs=1e-9)


@given(
    npst.arrays(np.float64, (3, 5, 4), elements=st.floats(-5, 5)),
    npst.arrays(np.float64, (3, 2, 4), elements=st.floats(-1e3, 1e3)),
    st.permutations(range(3)),
)
def test_padding_order_and_batch_mates_change_nothing(features, padding, order):
    mask = np.array([[1.0, 1, 1, 1, 1], [0, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    reference = np.abs(features[:, 0])

    def d(rows, width):
        wide = np.concatenate([features, padding], 1)[rows, :width]
        wide_mask = np.concatenate([mask, np.zeros((3, 2))], 1)[rows, :width]
        return discrepancy(xp, pool(xp, wide, wide_mask), reference[rows], 2)[0]

    plain = d([0, 1, 2], 5)
    np.testing.assert_allclose(d([0, 1, 2], 7), plain, rtol=0, atol=1e-9)
    np.testing.assert_allclose(d(list(order), 5), plain[list(order)], rtol=0, atol=1e-9)
    for row in range(3):
        np.testing.assert_allclose(d([row], 6), plain[[row]], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["torch64", "torch32", "mlx32"])
def test_gradient_of_d_by_hand(name):
    fw = framework(name)
    reference = np.array([[4.0, 0.0, 1.0, 1.5]])

    def loss(policy):
        return discrepancy(fw.xp, policy, fw.array(reference), 2)[0].sum()

    found = gradient(fw, loss, [[0.0, 3.0, 0.5, 2.0]])
    # 2 (c − c_ref) / k on I = {0, 1, 3}, nothing on feature 2
    np.testing.assert_allclose(found, [[-4.0, 3.0, 0.0, 0.5]], rtol=1e-6)


@pytest.mark.parametrize("name", ["torch64", "mlx32"])
@pytest.mark.parametrize("normalize", [False, True])
def test_no_gradient_flows_into_the_reference(name, normalize):
    fw = framework(name)
    policy = fw.array([[0.0, 3.0, 0.5]])

    def loss(reference):
        return discrepancy(fw.xp, policy, reference, 2, normalize=normalize)[0].sum()

    assert (gradient(fw, loss, [[4.0, 0.0, 1.0]]) == 0).all()


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_weighted_features_stand_in_for_the_top_k(name):
    fw = framework(name)
    policy, reference = (
        np.array([[4.0, 1, 0, 9], [2, 2, 2, 2]]),
        np.array([[1.0, 3, 0, 0], [2, 0, 5, 2]]),
    )
    weights = np.array([0.5, 2.0, 1.0, 0.0])
    arrays = (fw.array(x) for x in (policy, reference))
    d, size = discrepancy(fw.xp, *arrays, 1, weights=fw.array(weights))
    # Three features count whatever k is: 0.5·3² + 2·2², and 2·2² + 1·3².
    fw.close(d, [(0.5 * 9 + 2 * 4) / 3, (2 * 4 + 1 * 9) / 3])
    fw.close(size, [3, 3])
    d, _ = discrepancy(
        fw.xp, fw.array(policy), fw.array(reference), 1, weights=fw.array(weights), normalize=True
    )
    fw.close(d, [(0.5 * 9 + 2 * 4) / (1 + 9), (2 * 4 + 1 * 9) / (4 + 25)])


@pytest.mark.parametrize("name", ["torch64", "mlx32"])
def test_gradient_of_weighted_d_by_hand(name):
    fw = framework(name)
    policy, reference = np.array([[4.0, 1, 0, 9]]), np.array([[1.0, 3, 0, 0]])
    weights = np.array([0.5, 2.0, 1.0, 0.0])
    found = gradient(
        fw,
        lambda x: discrepancy(fw.xp, x, fw.array(reference), 50, weights=fw.array(weights))[
            0
        ].sum(),
        policy,
    )
    np.testing.assert_allclose(found, [[2 * 0.5 * 3 / 3, 2 * 2 * -2 / 3, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize("name", ["torch64", "mlx32"])
def test_a_feature_switched_off_has_a_gradient_only_straight_through(name):
    fw = framework(name)
    pooled, reference = np.array([[0.0, 0.0, 2.0]]), np.array([[3.0, 0.0, 3.0]])

    def d(pre, through):
        c = fw.array(pooled) + 0 * pre
        c = straight_through(fw.xp, c, pre, fw.array(reference)) if through else c
        return discrepancy(fw.xp, c, fw.array(reference), 3)[0].sum()

    pre = np.array([[-1.0, -2.0, 2.0]])
    for through in (True, False):
        assert float(d(fw.array(pre), through)) == pytest.approx(10 / 3)
    assert (gradient(fw, lambda x: d(x, False), pre) == 0).all()
    # Only feature 0 is off here and on in the reference: 2(0 − 3)/3.
    np.testing.assert_allclose(gradient(fw, lambda x: d(x, True), pre), [[-2, 0, 0]], rtol=1e-6)
