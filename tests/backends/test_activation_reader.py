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
from fpo_core.sae.taps import Features
from tests.backends.support import HIDDEN
from tests.helpers import random_sae

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
