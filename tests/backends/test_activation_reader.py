"""`fpo sae check` on a tiny model: both backends measure what transformers' hidden states say."""

import dataclasses
import importlib

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from fpo_core.config import ModelConfig
from fpo_core.sae.explained_variance import check_texts
from fpo_core.sae.hook import Hook
from fpo_core.sae.loss_recovered import measure_splice
from fpo_core.sae.taps import Features
from tests.backends.support import HIDDEN
from tests.helpers import identity_sae, random_sae

ROWS = [[1, 9, 11, 13, 15], [1, 21, 40], [1, 30, 31, 32, 33, 34, 35, 36]]
BOS = 1


@pytest.fixture(scope="module")
def sae():
    rng = np.random.default_rng(3)
    made = random_sae(HIDDEN, kind="topk")
    decoder = (rng.normal(size=(made.d_sae, HIDDEN)) * 0.3).astype(np.float32)
    return dataclasses.replace(made, W_dec=decoder, b_dec=np.full(HIDDEN, 0.1, np.float32))


@pytest.fixture(scope="module")
def expected(tiny, sae):
    """Variance unexplained and L0 in float64, row by row."""
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    states = []
    for row in ROWS:
        with torch.no_grad():
            found = model(torch.tensor([row]), output_hidden_states=True).hidden_states[2]
        states.append(found[0, 1:].double().numpy())
    h = np.concatenate(states)
    pre = h @ sae.W_enc + sae.b_enc
    kth = np.sort(pre, -1)[:, -sae.k, None]
    c = np.where(pre >= kth, np.maximum(pre, 0), 0)
    errors = ((h - c @ sae.W_dec - sae.b_dec) ** 2).sum()
    return errors / ((h - h.mean(0)) ** 2).sum(), (c > 0).sum(-1).mean(), len(h)


def test_both_backends_measure_the_same(backend, tiny, sae, expected):
    hook = Hook(1, "resid_post")
    kind = {"torch": "TorchReader", "mlx": "MlxReader"}[backend]
    reader = getattr(importlib.import_module(f"fpo_{backend}.activation_reader"), kind)
    config = ModelConfig(model=str(tiny), device="cpu", dtype="float32")
    found = check_texts(reader(tiny, config, [hook]), Features.of(sae, hook, (BOS,)), ROWS)
    unexplained, l0, tokens = expected
    np.testing.assert_allclose(found.variance_unexplained, unexplained, rtol=1e-4)
    np.testing.assert_allclose(found.l0, l0)
    assert found.tokens == tokens == 13


def whole(backend, tiny, hook):
    kind = {"torch": "TorchReader", "mlx": "MlxReader"}[backend]
    reader = getattr(importlib.import_module(f"fpo_{backend}.activation_reader"), kind)
    config = ModelConfig(model=str(tiny), device="cpu", dtype="float32")
    return reader(tiny, config, [hook], whole=True)


def mean_loss(logits, row):
    """Mean −log p of the tokens after the first, in float64."""
    logits = logits[0, :-1].astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -log_p[np.arange(len(row) - 1), row[1:]].mean()


@pytest.mark.parametrize("site", ["resid_post", "resid_pre", "mlp_out"])
def test_what_a_splice_costs(backend, tiny, site):
    """A perfect autoencoder costs nothing; zeros cost what zeros in transformers' model do."""
    hook, row = Hook(1, site), ROWS[2]
    perfect = identity_sae(HIDDEN)
    decoder = np.concatenate([np.eye(HIDDEN), -np.eye(HIDDEN)]).astype(np.float32)
    perfect = dataclasses.replace(perfect, W_dec=decoder, b_dec=np.zeros(HIDDEN, np.float32))
    reader = whole(backend, tiny, hook)
    spliced = measure_splice(reader, Features.of(perfect, hook), [row])
    assert spliced is not None
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    block = model.model.layers[1]

    def with_zeros(_module, args, output=None):
        value = args[0] if output is None else output
        return torch.zeros_like(value[0] if isinstance(value, tuple) else value)

    if site == "resid_pre":
        handle = block.register_forward_pre_hook(lambda m, a: (with_zeros(m, a), *a[1:]))
    else:
        handle = (block.mlp if site == "mlp_out" else block).register_forward_hook(with_zeros)
    with torch.no_grad():
        zero = model(torch.tensor([row])).logits.numpy()
        handle.remove()
        clean = model(torch.tensor([row])).logits.numpy()
    assert spliced.tokens == len(row) - 1
    np.testing.assert_allclose(spliced.ce_clean, mean_loss(clean, row), rtol=1e-4)
    np.testing.assert_allclose(spliced.ce_zero, mean_loss(zero, row), rtol=1e-4)
    np.testing.assert_allclose(spliced.ce_spliced, spliced.ce_clean, rtol=1e-4)
    np.testing.assert_allclose(spliced.kl, 0.0, atol=1e-4)
    np.testing.assert_allclose(spliced.share, 1.0, atol=1e-2)


def test_the_forward_pass_ends_at_the_last_hook(backend, tiny):
    hooks = [Hook(0, "resid_post"), Hook(1, "resid_pre")]
    kind = {"torch": "TorchReader", "mlx": "MlxReader"}[backend]
    reader = getattr(importlib.import_module(f"fpo_{backend}.activation_reader"), kind)
    config = ModelConfig(model=str(tiny), device="cpu", dtype="float32")
    first, second = map(
        reader.numpy, reader(tiny, config, hooks).read(np.array([ROWS[0]], np.int32))
    )
    np.testing.assert_allclose(first, second, rtol=1e-5)
