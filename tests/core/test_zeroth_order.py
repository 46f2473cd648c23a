"""LOZO's steps by hand, on weights of NumPy."""

import contextlib

import numpy as np
import pytest
from ml_dtypes import bfloat16

from fpo_core.backend.directions import RIGHT, Dense
from fpo_core.backend.zeroth_order import ZerothOrder, projected
from fpo_core.config import ObjectiveConfig, OptimiserConfig, TrainConfig
from fpo_core.errors import ConfigError, TrainingError
from fpo_core.loss.finite_difference import slope
from fpo_core.loss.scores import Scores

U, V = np.array([[1.0], [2.0]], np.float32), np.array([[1.0], [0.0], [-1.0]], np.float32)
G = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]])
"""The gradient of a linear loss: along UVᵀ it is 1 − 3 + 2 (4 − 7) = −8."""
RATE = 0.1


class Weights:
    """A `fpo_core.backend.parts.Trainable` of float64 arrays."""

    frozen, adapters = None, False

    def __init__(self, **weights):
        self.weights = {
            name: np.zeros(w) if isinstance(w, tuple) else w for name, w in weights.items()
        }

    def shapes(self):
        return {name: weight.shape for name, weight in self.weights.items()}

    def move(self, directions, scale, rounding=None):
        del rounding
        for name, z in directions.items():
            weight = self.weights[name]
            rows = z.rows(0, weight.size // weight.shape[-1]) if isinstance(z, Dense) else None
            added = z.left @ z.right.T if rows is None else rows
            self.weights[name] = weight + scale * added.reshape(weight.shape).astype(np.float64)


def optimizer(weights, seed=0, **settings):
    config = OptimiserConfig(**({"optimizer": "lozo", "zo_rank": 1, "zo_interval": 1} | settings))
    return ZerothOrder(weights, config, seed)


def with_factors(taken, *rights):
    """An optimizer that draws U, and of these V in turn, in place of random ones."""
    taken._normals = lambda name, number, kind: rights[number] if kind == RIGHT else U
    return taken


def difference(taken, weights, losses):
    """c of a loss of the weights."""
    values = []
    for sign in (1, -1):
        with taken.perturbed(sign):
            values.append(losses(weights.weights))
    return (values[0] - values[1]) / (2 * taken.epsilon)


def test_one_step_by_hand():
    weights = Weights(w=(2, 3))
    taken = with_factors(optimizer(weights), V)
    c = difference(taken, weights, lambda at: (G * at["w"]).sum())
    assert c == pytest.approx(-8)
    np.testing.assert_allclose(weights.weights["w"], 0, atol=1e-12)
    assert taken.step(c, RATE, 1e9) == pytest.approx(8)
    np.testing.assert_allclose(weights.weights["w"], 0.8 * np.array([[1, 0, -1], [2, 0, -2]]))
    assert taken.state()["step"] == 1


def test_the_divisor_is_the_rank():
    weights = Weights(w=(2, 3))
    taken = optimizer(weights, zo_rank=2)
    (z,) = taken._directions().values()
    assert z.left.shape, z.right.shape == ((2, 2), (3, 2))
    assert taken.step(3.0, RATE, 1e9) == pytest.approx(3 / 2**0.5)
    np.testing.assert_allclose(weights.weights["w"], -RATE * 3 / 2 * z.left @ z.right.T, rtol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [{"zo_rank": 2}, {"optimizer": "mezo", "zo_rank": None, "zo_interval": None}],
    ids=["lozo", "mezo"],
)
def test_the_estimate_is_the_gradient_in_expectation(settings):
    """Of a linear loss on a matrix and a vector: within sampling error."""
    slopes = {"w": G, "v": np.array([1.0, -2.0, 0.5])}
    draws = []
    for seed in range(1500):
        weights = Weights(w=(2, 3), v=(3,))
        taken = optimizer(weights, seed, **settings)
        c = difference(taken, weights, lambda at: sum((slopes[n] * w).sum() for n, w in at.items()))
        taken.step(c, 1.0, 1e9)
        draws.append(np.concatenate([-weights.weights[name].ravel() for name in slopes]))
    expected = np.concatenate([slopes[name].ravel() for name in slopes])
    error = np.std(draws, 0) / len(draws) ** 0.5
    assert (abs(np.mean(draws, 0) - expected) < 4 * error).all()
    assert error.max() < 0.7


def test_the_norm_is_the_gradients_in_mean_square_and_clipped():
    norms = []
    for seed in range(1000):
        weights = Weights(w=(2, 3))
        taken = optimizer(weights, seed, zo_rank=2)
        c = difference(taken, weights, lambda at: (G * at["w"]).sum())
        norms.append(taken.step(c, 0.0, 1e9))
    squares = np.square(norms)
    error = squares.std() / len(squares) ** 0.5
    assert abs(squares.mean() - (G**2).sum()) < 4 * error
    weights = Weights(w=(2, 3))
    assert with_factors(optimizer(weights), V).step(-8.0, RATE, 2.0) == 8
    np.testing.assert_allclose(weights.weights["w"], 0.2 * U @ V.T)


@pytest.mark.parametrize("settings", [{"zo_rank": 2}, {"optimizer": "lozo-m", "zo_rank": 2}])
def test_a_step_from_the_far_side_ends_where_the_others_do(settings):
    """Weights that stay perturbed come back in the move that takes the step, if there is one."""
    ends = []
    for stay in (False, True):
        weights = Weights(w=(4, 3), v=(3,))
        taken = optimizer(weights, **settings)
        for c in (2.0, np.nan, -1.0):
            for sign in (1, -1):
                with taken.perturbed(sign, stay=stay):
                    ends.append(weights.weights["w"])
            taken.step(c, RATE, 1e9)
            ends.append(weights.weights["w"])
        ends.append(weights.weights["v"])
    for once, again in zip(ends[:10], ends[10:], strict=True):
        np.testing.assert_allclose(again, once, rtol=1e-5, atol=1e-9)


def test_momentum_by_hand():
    """N₁ = ½ c₁ U and N₂ = ½ N₁ + ½ c₂ U under one V; a new V rewrites N first."""
    weights = Weights(w=(2, 3))
    other = np.array([[2.0], [1.0], [0.0]], np.float32)
    taken = optimizer(weights, optimizer="lozo-m", zo_momentum=0.5, zo_interval=2)
    with_factors(taken, V, other)
    for c in (4.0, 8.0):
        taken.step(c, RATE, 1e9)
    np.testing.assert_allclose(taken.state()["w.n"], 5 * U)
    np.testing.assert_allclose(weights.weights["w"], -RATE * 7 * U @ V.T, rtol=1e-6)
    taken.step(0.0, RATE, 1e9)  # N = 5U · (VᵀV' = 2) / 3, and half of it stays
    np.testing.assert_allclose(taken.state()["w.n"], 5 / 3 * U, rtol=1e-6)
    expected = -RATE * (7 * U @ V.T + 5 / 3 * U @ other.T)
    np.testing.assert_allclose(weights.weights["w"], expected, rtol=1e-6)


def test_projection_between_rotated_v():
    """With V_old = V_new Q and VᵀV = nI, N V_oldᵀ is the same matrix by either V."""
    generator = np.random.default_rng(0)
    new = np.linalg.qr(generator.normal(size=(50, 3)))[0] * 50**0.5
    q = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    mean, old = generator.normal(size=(4, 3)), new @ q
    result = projected(mean, old, new)
    np.testing.assert_allclose(result, mean @ q.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result @ new.T, mean @ old.T, rtol=1e-4, atol=1e-5)


def test_v_stays_for_an_interval_and_u_does_not():
    taken = optimizer(Weights(w=(2, 3)), zo_interval=3)
    drawn = []
    for _ in range(7):
        (z,) = taken._directions().values()
        drawn.append((z.left[0, 0], z.right[0, 0]))
        taken.step(1.0, 0.0, 1e9)
    lefts, rights = zip(*drawn, strict=True)
    assert len(set(lefts)) == 7
    assert [rights.index(r) for r in rights] == [0, 0, 0, 3, 3, 3, 6]


@pytest.mark.parametrize("at", [2, 3, 4])
def test_a_state_goes_on_at_a_refresh_and_elsewhere(at):
    settings = {"optimizer": "lozo-m", "zo_interval": 3, "zo_rank": 2}

    def steps(taken, weights, numbers):
        for number in numbers:
            c = difference(
                taken, weights, lambda at, k=number: np.sin(at["w"]).sum() + k * at["v"].sum()
            )
            taken.step(c, RATE, 1e9)

    weights = Weights(w=(4, 3), v=(3,))
    whole = optimizer(weights, **settings)
    steps(whole, weights, range(at))
    halves = Weights(**{name: weight.copy() for name, weight in weights.weights.items()})
    resumed = optimizer(halves, **settings)
    resumed.load_state(whole.state())
    steps(whole, weights, range(at, 8))
    steps(resumed, halves, range(at, 8))
    for name, weight in weights.weights.items():
        np.testing.assert_array_equal(halves.weights[name], weight)
    assert np.abs(whole.state()["v.n"]).max() > 0
    with pytest.raises(TrainingError, match="does not fit lozo-m"):
        optimizer(halves, **settings | {"zo_rank": 1}).load_state(whole.state())


def test_what_is_not_finite_moves_nothing_and_uses_the_direction_up():
    weights = Weights(w=(2, 3))
    taken = optimizer(weights)
    (before,) = taken._directions().values()
    assert np.isnan(taken.step(np.nan, RATE, 1.0))
    assert not weights.weights["w"].any()
    (after,) = taken._directions().values()
    assert (before.left != after.left).all()


def scores_at(x):
    """Scores of two pairs along a direction: m and D of either side are functions of x."""
    d = np.array([1.0, 2.0, 3.0, 4.0]) * np.exp([3.0 * x, -0.3 * x, 0.5 * x, -0.9 * x])
    return Scores(
        np.array([-4 + x, -6 - x, -5 + 2 * x, -7 + x**2]), np.array([2.0, 3.0, 2.0, 4.0]), d
    )


def loss_slope(stop_gradient):
    """d/dx of the mean of −log σ(u), u = β(m_w − m_l − (r_w − r_l) − α(D_l − D_w)), at 0."""
    beta, alpha = 0.5, 2.0
    s, m_slopes = scores_at(0.0), np.array([1, -1, 2, 0]) / np.array([2, 3, 2, 4])
    d_slopes = np.array([3.0, -0.3, 0.5, -0.9]) * s.d
    m = s.mean_logps
    u = beta * (m[:2] - m[2:] - alpha * (s.d[2:] - s.d[:2]))
    moved = d_slopes[2:] - (0 if stop_gradient else d_slopes[:2])
    return (-1 / (1 + np.exp(u)) * beta * (m_slopes[:2] - m_slopes[2:] - alpha * moved)).mean()


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_the_slope_of_fpo_holds_what_the_gradient_holds(stop_gradient):
    config = ObjectiveConfig(alpha=2.0, beta=0.5, normalize_d=False, stop_gradient=stop_gradient)
    c = slope(scores_at(1e-4), scores_at(-1e-4), np.zeros(4), config, 1e-4)
    assert c == pytest.approx(loss_slope(stop_gradient), rel=1e-6)
    assert abs(loss_slope(True) / loss_slope(False) - 1) > 0.2, "the two would agree anyway"


def test_moves_that_are_undone_one_by_one_leave_less_in_bfloat16():
    """Under a fifth of +ε, −2ε, +ε, whose roundings do not cancel (docs/zeroth-order.md)."""
    generator = np.random.default_rng(0)
    start = (0.04 * generator.normal(size=20_000)).astype(bfloat16)
    left = []
    for moves in ((1, -1, -1, 1), (1, -2, 1)):
        x = start
        for z in generator.normal(size=(50, len(start))).astype(np.float32):
            for move in moves:
                x = (x.astype(np.float32) + np.float32(1e-3 * move) * z).astype(bfloat16)
        left.append(np.linalg.norm((x - start).astype(np.float32)))
    assert 0 < left[0] < left[1] / 5


def test_settings_without_effect_are_refused():
    with pytest.raises(ConfigError, match="zo_rank is set, but the optimizer mezo has none"):
        OptimiserConfig(optimizer="mezo", zo_rank=2)
    with pytest.raises(ConfigError, match=r"zo_momentum is set.*\(lozo-m\)"):
        OptimiserConfig(optimizer="lozo", zo_momentum=0.5)
    with pytest.raises(ConfigError, match=r"weight_decay is 0\.1.*it decays nothing"):
        OptimiserConfig(optimizer="lozo", weight_decay=0.1)
    places = {"model": "m", "data": "d", "output": "o", "alpha": 0.0, "optimizer": "lozo"}
    for change in ({"dropout": 0.1}, {"grad_checkpoint": True}):
        with pytest.raises(ConfigError, match=f"{next(iter(change))} is set, but .* backward pass"):
            TrainConfig(**places, **change)


def test_the_weights_come_back_where_scoring_fails():
    weights = Weights(w=(2, 3))
    taken = optimizer(weights)
    with contextlib.suppress(ZeroDivisionError), taken.perturbed(1.0):
        assert weights.weights["w"].any()
        raise ZeroDivisionError
    np.testing.assert_allclose(weights.weights["w"], 0, atol=1e-12)
