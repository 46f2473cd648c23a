"""TransformerLens's z by its definition: attention over values that have no bias."""

import dataclasses

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from fpo_core.arrays import numpy_ops
from fpo_core.errors import SaeError
from fpo_core.models.folder import ModelFolder
from fpo_core.models.weights import ModelWeights
from fpo_core.sae.hook import Hook
from fpo_core.sae.sae import Sae
from fpo_core.sae.value_bias import subtract_value_bias, value_bias
from tests.backends.families import write_family

LAYER, M = 1, 40
OUT = {"gpt2": "attn.c_proj", "gpt_neox": "attention.dense", "qwen2": "self_attn.o_proj"}
NORM = {"gpt2": "ln_1", "gpt_neox": "input_layernorm", "qwen2": "input_layernorm"}


@pytest.fixture(scope="module", params=OUT)
def family(request, tmp_path_factory):
    """A tiny model with random biases, its z at LAYER, and z as TransformerLens has it."""
    folder = tmp_path_factory.mktemp(request.param) / "model"
    write_family(request.param, folder)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_()
    (model.transformer if request.param == "gpt2" else model).save_pretrained(folder)
    body = model.base_model
    blocks = body.h if request.param == "gpt2" else body.layers
    module = blocks[LAYER].get_submodule(OUT[request.param])
    seen = {}
    module.register_forward_pre_hook(lambda _, args: seen.update(z=args[0][0].double().numpy()))
    norm = blocks[LAYER].get_submodule(NORM[request.param])
    norm.register_forward_hook(lambda _, __, y: seen.update(x=y[0].double().detach().numpy()))
    with torch.no_grad():
        found = model(torch.arange(3, 14)[None], output_attentions=True)
    pattern = found.attentions[LAYER][0].double().numpy()
    return request.param, folder, blocks[LAYER], seen, pattern


def values_without_bias(kind, block, x):
    """W_V of the normed input less the norm's bias: (heads, t, head_dim), by each layout's rule."""
    bias = getattr(block.get_submodule(NORM[kind]), "bias", None)
    x = x if bias is None else x - bias.detach().double().numpy()
    if kind == "gpt2":
        matrix = block.attn.c_attn.weight.detach().double().numpy()
        flat, heads = x @ matrix[:, 2 * x.shape[1] :], block.attn.num_heads
    elif kind == "gpt_neox":
        matrix, heads = block.attention.query_key_value.weight, block.attention.config
        heads = heads.num_attention_heads
        matrix = matrix.detach().double().numpy().reshape(heads, 3, -1, x.shape[1])
        return np.einsum("td,hkd->htk", x, matrix[:, 2])
    else:
        flat = x @ block.self_attn.v_proj.weight.detach().double().numpy().T
        heads = block.self_attn.config.num_key_value_heads
    return flat.reshape(len(x), heads, -1).transpose(1, 0, 2)


def lens_z(kind, block, seen, pattern):
    """pattern @ values, all heads side by side: (t, heads · head_dim)."""
    values = values_without_bias(kind, block, seen["x"])
    values = np.repeat(values, len(pattern) // len(values), axis=0)
    return np.einsum("hqk,hkd->qhd", pattern, values).reshape(len(seen["z"]), -1)


def test_the_difference_is_the_bias_of_the_values(family):
    kind, folder, block, seen, pattern = family
    expected = lens_z(kind, block, seen, pattern)
    model = ModelFolder(folder, "m")
    v = value_bias(ModelWeights.open(model), model.config, LAYER)
    assert v is not None
    assert abs(v).max() > 0.1
    np.testing.assert_allclose(seen["z"] - v, expected, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize("architecture", ["relu", "gated"])
def test_features_and_reconstruction_are_those_of_the_lens(family, architecture):
    kind, folder, block, seen, pattern = family
    expected = lens_z(kind, block, seen, pattern)
    d, rng = expected.shape[1], np.random.default_rng(3)
    gated = architecture == "gated"
    arrays = {"W_enc": (d, M), "b_enc": M, "W_dec": (M, d), "b_dec": d}
    arrays |= {"r_mag": M, "b_mag": M} if gated else {}
    sae = Sae(
        architecture=architecture,
        d_in=d,
        d_sae=M,
        without_value_bias=True,
        **{name: rng.normal(size=size).astype(np.float32) for name, size in arrays.items()},
    )
    corrected = subtract_value_bias(sae, ModelFolder(folder, "m"), LAYER)
    features = sae.encode(numpy_ops, expected)
    wrong = sae.encode(numpy_ops, seen["z"])
    found = corrected.encode(numpy_ops, seen["z"])
    scale = abs(features).max()
    np.testing.assert_allclose(found, features, atol=1e-5 * scale)
    assert abs(wrong - features).max() > 0.05 * scale
    back = sae.decode(numpy_ops, features, expected)
    np.testing.assert_allclose(
        corrected.decode(numpy_ops, found, seen["z"]) - (seen["z"] - expected),
        back,
        atol=1e-5 * abs(back).max(),
    )


def test_what_cannot_be_subtracted_is_refused(family):
    _, folder, *_ = family
    model = ModelFolder(folder, "m")
    zeros = {"W_enc": np.zeros((5, M)), "b_enc": np.zeros(M)}
    sae = Sae(architecture="relu", d_in=5, d_sae=M, hook=Hook(LAYER, "z"), **zeros)
    with pytest.raises(SaeError, match="without the bias of the values"):
        subtract_value_bias(sae, model, LAYER)
    with pytest.raises(SaeError, match="layer_norm"):
        subtract_value_bias(dataclasses.replace(sae, input_transform="layer_norm"), model, LAYER)


def test_a_model_without_such_biases_needs_nothing(tmp_path):
    write_family("llama", tmp_path / "m")
    sae = Sae(architecture="relu", d_in=5, d_sae=M, W_enc=np.zeros((5, M)), b_enc=np.zeros(M))
    assert subtract_value_bias(sae, ModelFolder(tmp_path / "m", "m"), LAYER) is sae
