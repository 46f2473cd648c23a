"""Every hook site reads the same activation on both backends, and the one that it names."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from fpo_core.data.batches import collate
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.sae.hook import SITES, Hook
from tests.backends.support import HIDDEN
from tests.helpers import BACKENDS, identity_sae

PROMPT = [7, 9, 11, 13, 15]
LAST = (21, 40)


@pytest.fixture(scope="module")
def batch():
    """Completions of one token: their pooled feature is the activation at that token."""
    return collate(TokenisedPairs.from_lists([(PROMPT, [LAST[0]], [LAST[1]])]), [0])


@pytest.fixture(scope="module")
def read(make_policy, batch):
    """The activation at a hook on the last token of both sides: (2, d)."""

    def read(backend, hook, **adapter):
        policy = make_policy(backend, hook=str(hook), sae=identity_sae(HIDDEN), **adapter)
        pooled = policy.score(batch).pooled
        return pooled[:, :HIDDEN] - pooled[:, HIDDEN:]

    return read


@pytest.fixture(scope="module")
def states(tiny):
    """transformers' own hidden states on the last token, by layer, and the last block's output."""
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    tokens = torch.tensor([[*PROMPT, last] for last in LAST])
    with torch.no_grad():
        found = model(tokens, output_hidden_states=True).hidden_states
    return [state[:, -1].numpy() for state in found], model.model.norm


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("layer", [0, 2])
def test_backends_read_the_same(read, site, layer):
    first, second = (read(backend, Hook(layer, site)) for backend in BACKENDS)
    assert np.abs(first).max() > 0.01
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 1])
def test_residuals_are_transformers_hidden_states(backend, read, states, layer):
    hidden, _ = states
    found = read(backend, Hook(layer, "resid_pre"))
    np.testing.assert_allclose(found, hidden[layer], rtol=1e-5, atol=1e-5)
    found = read(backend, Hook(layer, "resid_post"))
    np.testing.assert_allclose(found, hidden[layer + 1], rtol=1e-5, atol=1e-5)


def test_the_last_block_is_read_before_the_final_norm(backend, read, states):
    hidden, norm = states
    found = read(backend, Hook(2, "resid_post"))
    assert np.abs(found - hidden[-1]).max() > 0.1
    with torch.no_grad():
        normed = norm(torch.from_numpy(found)).numpy()
    np.testing.assert_allclose(normed, hidden[-1], rtol=1e-4, atol=1e-5)


def test_the_sites_of_a_block_add_up(backend, read):
    at = {site: read(backend, Hook(1, site)) for site in SITES}
    np.testing.assert_allclose(at["resid_pre"] + at["attn_out"], at["resid_mid"], atol=1e-5)
    np.testing.assert_allclose(at["resid_mid"] + at["mlp_out"], at["resid_post"], atol=1e-5)


@pytest.mark.parametrize("site", SITES)
def test_adapters_do_not_move_the_place(backend, read, site):
    """With adapters at zero, around every linear layer, each site reads what it did without."""
    plain = read(backend, Hook(1, site), fine_tune_type="full")
    np.testing.assert_allclose(read(backend, Hook(1, site)), plain, rtol=1e-5, atol=1e-5)
