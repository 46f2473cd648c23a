"""The gradients of an autoencoder's training, against torch's differentiation of the formula."""

import importlib

import numpy as np
import pytest
import torch

from fpo_core.backend.process_group import ALONE
from fpo_core.config import BackendConfig
from fpo_core.sae_training.gradients import AUX, compute_step
from fpo_core.sae_training.learner import Learner, Scaling, initial
from fpo_core.sae_training.recipe import Recipe

D, M, B = 8, 40, 50
DEAD = np.array([1, 5, 7, 12, 20, 30], np.int32)


def kernels_of(backend):
    prefix = {"torch": "Torch", "mlx": "Mlx"}[backend]
    module = importlib.import_module(f"fpo_{backend}.kernels.sparse_codes")
    return getattr(module, f"{prefix}Kernels")(BackendConfig(device="cpu"))


def recipe(**changes):
    plain = {"d_in": D, "d_sae": M, "k": 3, "tokens": 5000, "batch_tokens": B, "seed": 0}
    plain |= {"learning_rate": 1e-2, "architecture": "batchtopk", "prefixes": (M,)}
    return Recipe(**(plain | changes))


@pytest.fixture(scope="module")
def z():
    return np.random.default_rng(1).normal(size=(B, D)).astype(np.float32) * 2


@pytest.fixture(scope="module")
def parameters():
    rng = np.random.default_rng(2)
    plain = initial(recipe())
    return {n: x + 0.1 * rng.normal(size=x.shape).astype(np.float32) for n, x in plain.items()}


def expected(parameters, z, made, dead):
    """Loss and gradients by autograd, in float64."""
    leaves = {
        n: torch.tensor(x.astype(np.float64), requires_grad=True) for n, x in parameters.items()
    }
    x = torch.tensor(z.astype(np.float64))
    h = x @ leaves["W_enc"].T + leaves["b_enc"]
    flat = h.detach() if made.architecture == "topk" else h.detach().reshape(1, -1)
    count = made.k if made.architecture == "topk" else made.k * B
    kth = flat.topk(count, dim=-1).values[:, -1:]
    f = torch.relu(h) * (h >= kth)
    variance = ((x - x.mean(0)) ** 2).sum()
    losses = []
    for width in made.prefixes:
        out = f[:, :width] @ leaves["W_dec"][:width] + leaves["b_dec"]
        losses.append(((x - out) ** 2).sum() / variance)
    total = sum(losses) / len(losses)
    if dead is not None:
        index = torch.tensor(dead).long()
        r, h_dead = (x - out).detach(), h[:, index]
        kth = h_dead.topk(made.k, dim=-1).values[:, -1:]
        f_dead = torch.relu(h_dead) * (h_dead >= kth)
        missed = ((f_dead @ leaves["W_dec"][index] - r) ** 2).sum()
        total = total + AUX * missed / ((r - r.mean(0)) ** 2).sum()
    total.backward()
    return losses[-1].item(), {n: leaf.grad.numpy() for n, leaf in leaves.items()}


@pytest.mark.parametrize("architecture", ["batchtopk", "topk"])
def test_a_batch_in_which_no_feature_is_active(backend, parameters, z, architecture):
    kernels, silent = kernels_of(backend), {"b_enc": np.full(M, -1e3, np.float32)}
    arrays = {name: kernels.array(x) for name, x in (parameters | silent).items()}
    step = compute_step(
        kernels, arrays, kernels.array(z), recipe(architecture=architecture), None, ALONE
    )
    assert float(step.threshold) == float("inf")
    assert float(step.fired.sum()) == 0
    assert not kernels.numpy(step.gradients["W_enc"]).any()
    assert kernels.numpy(step.gradients["b_dec"]).any()


@pytest.mark.parametrize("dead", [None, DEAD], ids=["alive", "dead"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"prefixes": (4, 16, M)}, {"architecture": "topk"}],
    ids=["batchtopk", "matryoshka", "topk"],
)
def test_gradients_are_those_of_the_formula(backend, parameters, z, changes, dead):
    kernels, made = kernels_of(backend), recipe(**changes)
    arrays = {name: kernels.array(x) for name, x in parameters.items()}
    index = None if dead is None else kernels.array(dead)
    step = compute_step(kernels, arrays, kernels.array(z), made, index, ALONE)
    loss, gradients = expected(parameters, z, made, dead)
    np.testing.assert_allclose(float(step.loss), loss, rtol=1e-5)
    for name, gradient in gradients.items():
        found = kernels.numpy(step.gradients[name])
        np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-6)
    if made.architecture == "batchtopk":
        assert float(step.fired.sum()) == 3 * B


def test_fewer_positive_entries_than_asked_for(backend):
    kernels = kernels_of(backend)
    pre = np.full((4, 6), -1.0, np.float32)
    pre[2, 3] = pre[0, 1] = 2.0
    codes = kernels.choose_batch(kernels.array(pre), 12)
    W = np.arange(12, dtype=np.float32).reshape(6, 2)
    out = kernels.numpy(kernels.decode(codes, kernels.array(W)))
    np.testing.assert_array_equal(out, [2 * W[1], [0, 0], 2 * W[3], [0, 0]])


def learner(backend):
    made, scaling = (
        recipe(batch_tokens=200, tokens=10_000),
        Scaling(np.full(D, 0.1, np.float32), 1.2, 1e9),
    )
    return Learner(kernels_of(backend), made, scaling, ALONE)


def batches(count):
    """Sparse sums of 24 directions."""
    rng = np.random.default_rng(4)
    directions = rng.normal(size=(24, D))
    for _ in range(count):
        active = rng.random((200, 24)) < 0.1
        yield (active * rng.exponential(2, active.shape) @ directions).astype(np.float32)


def losses(made, count):
    return np.array([float(made.learn(made.kernels.array(x))) for x in batches(count)])


def test_both_backends_learn_the_same():
    """Bar: the same losses over 50 steps, within 1e-4."""
    torch_, mlx = learner("torch"), learner("mlx")
    ours, theirs = losses(torch_, 50), losses(mlx, 50)
    assert ours[-1] < 0.8 * ours[0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_a_learner_goes_on_from_its_state_bit_for_bit(backend):
    whole, data = learner(backend), list(batches(25))
    for x in data[:12]:
        whole.learn(whole.kernels.array(x))
    again = learner(backend)
    again.load_state(whole.state(), whole.step)
    for made in (whole, again):
        for x in data[12:]:
            made.learn(made.kernels.array(x))
    for name, value in whole.state().items():
        np.testing.assert_array_equal(again.state()[name], value)


def test_decoder_rows_stay_of_norm_one(backend):
    made = learner(backend)
    losses(made, 5)
    rows = made.kernels.numpy(made.parameters["W_dec"])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-5)
