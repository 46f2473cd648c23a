"""Every site of every supported family: the same on both backends, and the place that it names."""

import importlib

import mlx.core as mx
import numpy as np
import pytest
import torch
import transformers

import fpo_mlx.hooks
import fpo_mlx.models
import fpo_torch.hooks
import fpo_torch.models
from fpo_core.config import ModelConfig
from fpo_core.errors import SaeError
from fpo_core.sae_hook import SITES

TOKENS = [[3, 9, 11, 13, 15, 21, 40, 8]]
WIDTHS = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "initializer_range": 0.25,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
TIED = WIDTHS | {"tie_word_embeddings": True}
# Heads as wide as the hidden size divided by their number, as mlx-lm takes for granted
PLAIN = {name: value for name, value in WIDTHS.items() if name != "head_dim"}
GPT2 = {
    "vocab_size": 64,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "initializer_range": 0.25,
}
FAMILIES = {
    "llama": ("Llama", WIDTHS),
    "mistral": ("Mistral", WIDTHS),
    "qwen2": ("Qwen2", PLAIN),
    "qwen3": ("Qwen3", WIDTHS),
    "gemma2": ("Gemma2", TIED | {"query_pre_attn_scalar": 16}),
    # Six layers hold one of each kind of attention; the window is shorter than the sequence.
    "gemma3": (
        "Gemma3",
        TIED | {"query_pre_attn_scalar": 16, "sliding_window": 4, "num_hidden_layers": 6},
    ),
    "phi3": ("Phi3", PLAIN),
    "olmo2": ("Olmo2", PLAIN),
    "gpt2": ("GPT2", GPT2),
    "gpt_neox": ("GPTNeoX", PLAIN | {"intermediate_size": 128}),
}
PARALLEL = ("gpt_neox",)
# mlx-lm rounds gemma3's embedding scale to bfloat16, and takes another GELU in gpt_neox.
TOLERANCE = {"gemma3": 1e-3, "gpt_neox": 1e-3}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory):
    """A random model with norms that are not all one, so that before and after differ."""
    name, settings = FAMILIES[family]
    config_name = "Gemma3TextConfig" if family == "gemma3" else f"{name}Config"
    config = getattr(transformers, config_name)(**settings)
    torch.manual_seed(0)
    suffix = "LMHeadModel" if family == "gpt2" else "ForCausalLM"
    model = getattr(transformers, name + suffix)(config)
    for path, weight in model.named_parameters():
        if weight.ndim == 1:
            torch.nn.init.normal_(weight, 0.0 if path.endswith("bias") else 0.7, 0.3)
    target = tmp_path_factory.mktemp(family)
    # The hub's gpt2 is the body alone, and mlx-lm takes it so.
    (model.transformer if family == "gpt2" else model).save_pretrained(target)
    return target


@pytest.fixture(scope="module")
def read(folder):
    """The activation at a site: (t, d) of one sequence."""

    def read(backend, layer, site):
        array, model, stack = loaded(backend, folder)
        tap = importlib.import_module(f"fpo_{backend}.hooks").Tap(stack[layer], site)
        if backend == "mlx":
            tap.install()
        _, value = tap.watch(lambda: model(array))
        return value[0].detach().numpy() if backend == "torch" else np.array(value[0])

    return read


def loaded(backend, folder):
    config = ModelConfig(model=str(folder))
    if backend == "torch":
        model = fpo_torch.models.load_model(folder, config, torch.float32).eval()
        return torch.tensor(TOKENS), model, fpo_torch.models.find_blocks(model)[1]
    model, _ = fpo_mlx.models.load_model(folder, config, mx.float32)
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
        close(sites["mlx"][place], expected, TOLERANCE.get(family, 1e-5))


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
    if family in ("llama", "gemma3"):
        assert at["z"].shape[-1] == 64, "all heads side by side"


@pytest.mark.parametrize("family", PARALLEL, indirect=True)
def test_parallel_blocks_have_no_middle(backend, read):
    with pytest.raises(SaeError, match="no place for the hook site 'resid_mid'"):
        read(backend, 0, "resid_mid")
