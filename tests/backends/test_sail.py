"""SAIL's terms against exact enumeration: the expected gradient of the loss is that of −J.

Five responses with logits θ, π = softmax(θ), h = log π − log π_ref, F = log σ(β(h_w − h_l)).
"""

import functools

import mlx.core as mx
import numpy as np
import pytest
import torch

from fpo_core.arrays import numpy_ops
from fpo_core.config import ObjectiveConfig
from fpo_core.loss.objectives import objective_losses
from fpo_core.loss.online import OnlineTerms
from fpo_core.loss.scores import Scores
from fpo_mlx import ops as mlx_ops
from fpo_torch import ops as torch_ops

BETA = 0.2
DPO = ObjectiveConfig(objective="dpo", beta=BETA)
DRAWN = np.random.default_rng(5)
THETA, REFERENCE = DRAWN.normal(size=(2, 5)) * 0.8
REFERENCE = REFERENCE - np.log(np.exp(REFERENCE).sum())
OUTSIDE = DRAWN.uniform(0.1, 0.9, size=(5, 5))
"""How likely the judge prefers the first of two responses, each order by itself."""
DATA = DRAWN.dirichlet(np.ones(25)).reshape(5, 5)
"""How often a pair is in the data."""
W, L = (places.ravel() for places in np.indices((5, 5)))


def log_softmax(theta):
    return theta - np.log(np.exp(theta).sum())


def pairs_of(route, theta):
    """How likely each labelled pair (w, l) is, (5, 5)."""
    logps = log_softmax(theta)
    h = logps - REFERENCE
    both = np.exp(logps)[:, None] * np.exp(logps)
    own = 1 / (1 + np.exp(-BETA * (h[:, None] - h)))
    pairs, labels = {
        "ddp": (DATA, own),
        "dpp": (both, own),
        "dpr": (both, OUTSIDE),
    }[route]
    return pairs * labels + (pairs * (1 - labels)).T


def value(route, theta):
    """J(θ), by enumeration."""
    h = log_softmax(theta) - REFERENCE
    f = -np.logaddexp(0, -BETA * (h[:, None] - h))
    return (pairs_of(route, theta) * f).sum()


def slope_of(route):
    """∇J by central differences of the fourth order."""
    step, result = 1e-3, np.zeros(5)
    for i, direction in enumerate(np.eye(5) * step):
        at = {k: value(route, THETA + k * direction) for k in (-2, -1, 1, 2)}
        result[i] = (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * step)
    return result


def terms_of(route, weight=1.0, baseline=0.3):
    """The weights of a route for all 25 pairs."""
    own_labels = np.full(25, weight * (route != "dpr"))
    own_samples = np.full(25, weight * (route != "ddp"))
    return own_labels, own_samples, baseline


def losses(xp, theta, terms, log_normaliser, double):
    """The loss of each labelled pair at θ, (25,)."""
    logps = theta - log_normaliser(theta)
    index = xp.asarray(np.concatenate([W, L]), theta)
    like = double(np.concatenate([REFERENCE[W], REFERENCE[L]]))
    scores = Scores(logps=logps[index], lengths=like * 0 + 1)
    online = OnlineTerms(double(terms[0]), double(terms[1]), terms[2])
    return objective_losses(xp, scores, like, DPO, online)


def gradient_on_torch(route, terms):
    theta = torch.tensor(THETA, requires_grad=True)
    weights = torch.tensor(pairs_of(route, THETA).ravel())
    loss = losses(torch_ops, theta, terms, lambda x: torch.logsumexp(x, 0), torch.tensor)
    (weights * loss).sum().backward()
    assert theta.grad is not None
    return theta.grad.numpy()


def gradient_on_mlx(route, terms):
    with mx.stream(mx.cpu):
        double = functools.partial(mx.array, dtype=mx.float64)
        weights = double(pairs_of(route, THETA).ravel())

        def total(theta):
            return (weights * losses(mlx_ops, theta, terms, mx.logsumexp, double)).sum()

        return np.array(mx.grad(total)(double(THETA)))


@pytest.mark.parametrize(
    ("gradient", "within"), [(gradient_on_torch, 1e-8), (gradient_on_mlx, 1e-7)]
)
@pytest.mark.parametrize("route", ["ddp", "dpp", "dpr"])
def test_the_expected_gradient_is_that_of_the_objective(route, gradient, within):
    """Bar: 1e-8; MLX's exponentials in float64 reach 1e-7. The baseline, 0.3, adds nothing."""
    found = gradient(route, terms_of(route))
    np.testing.assert_allclose(found, -slope_of(route), atol=within, rtol=0)
    assert np.abs(gradient(route, terms_of(route, 0.0)) - found).max() > 1e-3


def of_pair(u, weight):
    """Loss and its slope in θ_w of one pair with log σ(u), own label and no samples."""
    terms = OnlineTerms(np.array([weight]), np.zeros(1))
    logps = torch.tensor([u / BETA, 0.0], dtype=torch.float64, requires_grad=True)
    scores = Scores(logps=logps, lengths=torch.ones(2, dtype=torch.float64))
    loss = objective_losses(
        torch_ops, scores, torch.zeros(2).double(), DPO, terms.astype(torch_ops, logps)
    )
    loss.sum().backward()
    assert logps.grad is not None
    return float(loss.detach()[0]), float(logps.grad[0])


def test_a_pair_is_never_rewarded_for_being_wrong():
    """Below F = −1/w the term is held: plain DPO's slope, and no jump of the loss there."""
    weight = 0.5
    edge = float(np.log(np.exp(-1 / weight) / (1 - np.exp(-1 / weight))))
    (below, _), (above, _) = of_pair(edge - 1e-6, weight), of_pair(edge + 1e-6, weight)
    assert below == pytest.approx(above, abs=1e-5)
    for u in (edge - 3, edge - 0.1):
        assert of_pair(u, weight)[1] == pytest.approx(of_pair(u, 0.0)[1], rel=1e-6)
        assert of_pair(u, weight)[1] < 0
    assert of_pair(edge + 0.1, weight)[1] != pytest.approx(of_pair(edge + 0.1, 0.0)[1], rel=1e-2)


def test_without_weight_the_loss_is_the_objectives_own():
    scores = Scores(logps=DRAWN.normal(size=8), lengths=np.full(8, 3.0))
    reference = DRAWN.normal(size=8)
    none = OnlineTerms(np.zeros(4), np.zeros(4), 0.5)
    plain = objective_losses(numpy_ops, scores, reference, DPO)
    assert (objective_losses(numpy_ops, scores, reference, DPO, none) == plain).all()
