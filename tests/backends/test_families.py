"""Every site of every supported family: the same on both backends, and the place that it names."""

import importlib

import mlx.core as mx
import numpy as np
import pytest
import torch

import fpo_mlx.hooks
import fpo_mlx.models
import fpo_torch.hooks
import fpo_torch.models
from fpo_core.config import ModelConfig
from fpo_core.errors import SaeError
from fpo_core.sae.hook import SITES
from tests.backends.families import APART, FAMILIES, OTHERS, ROUNDED, write_family

TOKENS = [[3, 9, 11, 13, 15, 21, 40, 8]]
WIDE_HEADS = {"num_hidden_layers": 2, "initializer_range": 0.25, "head_dim": 16}
# phi3 and qwen2 take heads as wide as the hidden size divided by their number
PLAIN = {"num_hidden_layers": 2, "initializer_range": 0.25}
CHANGES = {
    "llama": WIDE_HEADS,
    "mistral": WIDE_HEADS,
    "qwen3": WIDE_HEADS,
    "gemma2": WIDE_HEADS,
    # Six layers hold one of each kind of attention; the window is shorter than the sequence.
    "gemma3_text": WIDE_HEADS | {"num_hidden_layers": 6, "sliding_window": 4},
    "gpt2": {"n_layer": 2, "initializer_range": 0.25},
}
PARALLEL = ("gpt_neox", "gpt_neox_erf")


@pytest.fixture(scope="module", params=FAMILIES | ROUNDED | OTHERS)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory):
    return write_family(family, tmp_path_factory.mktemp(family), **CHANGES.get(family, PLAIN))


@pytest.fixture(scope="module")
def read(folder):
    """The activation at a site: (t, d) of one sequence."""

    def read(backend, layer, site):
        array, model, stack = loaded(backend, folder)
        tap = importlib.import_module(f"fpo_{backend}.hooks").Tap(stack[layer], site)
        if backend == "mlx":
            tap.install()
        _, value = tap.capture(lambda: model(array))
        return value[0].detach().numpy() if backend == "torch" else np.array(value[0])

    return read


def loaded(backend, folder):
    config = ModelConfig(model=str(folder))
    if backend == "torch":
        model = fpo_torch.models.load_model(folder, config, torch.float32).eval()
        return torch.tensor(TOKENS), model, fpo_torch.models.find_blocks(model)[1]
    model = fpo_mlx.models.load_model(folder, config, mx.float32).model
    return mx.array(TOKENS), model, fpo_mlx.models.find_blocks(model)[1]


@pytest.fixture(scope="module")
def sites(family, read):
    """All sites of both layers on both backends; a site that the family lacks is left out."""
    names = [site for site in SITES if not (family in PARALLEL and site == "resid_mid")]
    return {
        backend: {(layer, site): read(backend, layer, site) for layer in (0, 1) for site in names}
        for backend in ("torch", "mlx")
    }


def close(found, expected, tolerance):
    scale = np.abs(expected).max()
    assert scale > 0.01
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


def test_backends_read_the_same(family, sites):
    for place, expected in sites["torch"].items():
        close(sites["mlx"][place], expected, APART.get(family, 1e-5))


def test_sites_add_up(family, backend, sites):
    at = sites[backend]
    for layer in (0, 1):
        before, attention, mlp, after = (
            at[layer, site] for site in ("resid_pre", "attn_out", "mlp_out", "resid_post")
        )
        close(before + attention + mlp, after, 1e-5)
        if family not in PARALLEL:
            close(before + attention, at[layer, "resid_mid"], 1e-5)
    close(at[1, "resid_pre"], at[0, "resid_post"], 1e-7)


def test_the_inputs_of_attention_output_and_mlp(family, folder, sites):
    """What z and mlp_in name, put through their own modules, gives what the branches give."""
    _, _, stack = loaded("torch", folder)
    block = stack[1]
    at = {
        site: torch.from_numpy(sites["torch"][1, site])
        for site in ("z", "mlp_in", "attn_out", "mlp_out")
    }
    projections = ("self_attn.o_proj", "attn.c_proj", "attention.dense")
    names = dict(block.named_modules())
    project = next(names[path] for path in projections if path in names)
    post_norms = "post_feedforward_layernorm" in names
    with torch.no_grad():
        attention, mlp = project(at["z"][None])[0], block.mlp(at["mlp_in"][None])[0]
        if post_norms:
            attention = names["post_attention_layernorm"](attention)
            mlp = names["post_feedforward_layernorm"](mlp)
    close(attention.numpy(), at["attn_out"].numpy(), 1e-5)
    close(mlp.numpy(), at["mlp_out"].numpy(), 1e-5)
    if family in ("llama", "gemma3_text"):
        assert at["z"].shape[-1] == 64, "all heads side by side"


@pytest.mark.parametrize("family", PARALLEL, indirect=True)
def test_parallel_blocks_have_no_middle(backend, read):
    with pytest.raises(SaeError, match="no module for the hook site 'resid_mid'"):
        read(backend, 0, "resid_mid")
