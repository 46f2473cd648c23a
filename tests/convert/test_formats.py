"""Each published format but SAELens's: a tiny file in its exact layout, that project's formula."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from fpo_convert.sae import convert_sae
from fpo_core.arrays import numpy_ops
from fpo_core.errors import SaeError
from fpo_core.sae.sae import load_sae
from tests.convert.sae_files import D_IN, D_SAE, inputs, relu, top_k, weights


def check(source, out, expected, **options):
    """Convert, compare the features of `inputs()` with `expected`, and return the autoencoder."""
    report = convert_sae(source, out, **options)
    assert report.unexplained_flips == 0
    sae = load_sae(out)
    found = sae.encode(numpy_ops, inputs())
    assert (expected > 0).any()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * expected.max())
    return sae


def jumprelu(pre, threshold):
    return np.where(pre > threshold, relu(pre), 0)


def torch_save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    as_tensors = {
        key: torch.from_numpy(np.ascontiguousarray(value))
        if isinstance(value, np.ndarray)
        else value
        for key, value in content.items()
    }
    torch.save(as_tensors, path)


def test_gemma_scope(tmp_path):
    w = weights(1, threshold=True)
    folder = tmp_path / "gemma-scope-2b-pt-res" / "layer_12" / "width_16k" / "average_l0_82"
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **w)
    expected = jumprelu(inputs() @ w["W_enc"] + w["b_enc"], w["threshold"])
    sae = check(folder, tmp_path / "o", expected)
    assert (str(sae.hook), sae.model_name) == ("blocks.12.hook_resid_post", "google/gemma-2-2b")
    assert "bos" in sae.untrained_tokens


@pytest.mark.parametrize(
    ("kind", "hook"),
    [
        ("resid_post", "blocks.3.hook_resid_post"),
        ("mlp_out", "blocks.3.hook_mlp_out"),
        ("attn_out", "blocks.3.attn.hook_z"),
    ],
)
def test_gemma_scope_2_without_config(tmp_path, kind, hook):
    w = weights(2, threshold=True)
    folder = tmp_path / "gemma-scope-2-270m-it" / kind / "layer_3_width_16k_l0_small"
    folder.mkdir(parents=True)
    save_file({k.replace("W_", "w_"): v for k, v in w.items()}, folder / "params.safetensors")
    expected = jumprelu(inputs() @ w["W_enc"] + w["b_enc"], w["threshold"])
    sae = check(folder, tmp_path / "o", expected)
    assert (str(sae.hook), sae.model_name) == (hook, "google/gemma-3-270m-it")
    assert sae.has_decoder


def test_gemma_scope_2_transcoder_with_config(tmp_path):
    w = weights(2, threshold=True)
    stored = {k.replace("W_", "w_"): v for k, v in w.items()}
    stored["affine_skip_connection"] = np.eye(D_IN, dtype=np.float32)
    save_file(stored, tmp_path / "params.safetensors")
    config = {
        "architecture": "jump_relu",
        "model_name": "gemma-v3-1b-it",
        "width": D_SAE,
        "hf_hook_point_in": "model.layers.5.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.5.post_feedforward_layernorm.output",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    expected = jumprelu(inputs() @ w["W_enc"] + w["b_enc"], w["threshold"])
    sae = check(tmp_path / "params.safetensors", tmp_path / "o", expected)
    assert (str(sae.hook), sae.model_name) == ("blocks.5.mlp.hook_in", "google/gemma-3-1b-it")
    assert not sae.has_decoder


def test_llama_scope(tmp_path):
    w = weights(3)
    norm, theta = 12.125, 0.2
    scale = np.sqrt(D_IN) / norm
    (tmp_path / "checkpoints").mkdir()
    save_file(
        {
            "encoder.weight": np.ascontiguousarray(w["W_enc"].T),
            "encoder.bias": w["b_enc"],
            "decoder.weight": np.ascontiguousarray(w["W_dec"].T),
            "decoder.bias": w["b_dec"],
        },
        tmp_path / "checkpoints" / "final.safetensors",
    )
    hyper = {
        "d_model": D_IN,
        "d_sae": D_SAE,
        "jump_relu_threshold": theta,
        "dataset_average_activation_norm": {"in": norm, "out": norm},
        "hook_point_in": "blocks.15.hook_resid_post",
        "hook_point_out": "blocks.15.hook_resid_post",
    }
    (tmp_path / "hyperparams.json").write_text(json.dumps(hyper))
    expected = jumprelu((inputs() * scale) @ w["W_enc"] + w["b_enc"], theta * scale)
    sae = check(tmp_path, tmp_path / "o", expected)
    assert str(sae.hook) == "blocks.15.hook_resid_post"
    np.testing.assert_allclose(sae.W_dec, w["W_dec"] / scale, rtol=1e-6)


def dictionary(folder, dict_class, content, **trainer):
    settings = {"dict_class": dict_class, "activation_dim": D_IN, "dict_size": D_SAE, "layer": 4}
    settings |= {"lm_name": "EleutherAI/pythia-70m-deduped", "submodule_name": "resid_post_layer_4"}
    config = {"trainer": settings | trainer, "buffer": {"ctx_len": 128}}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch_save(folder / "ae.pt", content)
    return folder


def test_dictionary_learning_standard(tmp_path):
    w = weights(4)
    content = {"bias": w["b_dec"], "encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"]}
    folder = dictionary(tmp_path / "d", "AutoEncoder", content | {"decoder.weight": w["W_dec"].T})
    expected = relu((inputs() - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    sae = check(folder, tmp_path / "o", expected)
    assert str(sae.hook) == "blocks.4.hook_resid_post"


def test_dictionary_learning_new(tmp_path):
    w = weights(4)
    content = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"]}
    content |= {"decoder.weight": w["W_dec"].T, "decoder.bias": w["b_dec"]}
    folder = dictionary(tmp_path / "d", "AutoEncoderNew", content)
    check(folder, tmp_path / "o", relu(inputs() @ w["W_enc"] + w["b_enc"]))


def test_dictionary_learning_gated(tmp_path):
    w = weights(5, gated=True)
    content = {"decoder_bias": w["b_dec"], "encoder.weight": w["W_enc"].T, "r_mag": w["r_mag"]}
    content |= {"gate_bias": w["b_gate"], "mag_bias": w["b_mag"], "decoder.weight": w["W_dec"].T}
    folder = dictionary(tmp_path / "d", "GatedAutoEncoder", content)
    projected = (inputs() - w["b_dec"]) @ w["W_enc"]
    magnitude = relu(projected * np.exp(w["r_mag"]) + w["b_mag"])
    check(folder, tmp_path / "o", np.where(projected + w["b_gate"] > 0, magnitude, 0))


def test_dictionary_learning_topk_ignores_its_threshold(tmp_path):
    w = weights(6)
    content = {"b_dec": w["b_dec"], "encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"]}
    content |= {
        "decoder.weight": w["W_dec"].T,
        "k": torch.tensor(5),
        "threshold": torch.tensor(-1.0),
    }
    folder = dictionary(tmp_path / "d", "AutoEncoderTopK", content, k=5)
    pre = (inputs() - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    check(folder, tmp_path / "o", top_k(relu(pre), 5))


@pytest.mark.parametrize("dict_class", ["BatchTopKSAE", "MatryoshkaBatchTopKSAE"])
def test_dictionary_learning_batch_topk_uses_its_threshold(tmp_path, dict_class):
    w = weights(7)
    if dict_class == "BatchTopKSAE":
        content = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"]}
        content |= {"decoder.weight": w["W_dec"].T}
    else:
        content = {"W_enc": w["W_enc"], "b_enc": w["b_enc"], "W_dec": w["W_dec"]}
        content |= {"group_sizes": torch.tensor([8, 16])}
    content |= {"b_dec": w["b_dec"], "k": torch.tensor(5), "threshold": torch.tensor(1.25)}
    folder = dictionary(tmp_path / "d", dict_class, content)
    pre = (inputs() - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    check(folder, tmp_path / "o", jumprelu(pre, 1.25))


def test_dictionary_learning_refuses_a_threshold_never_set(tmp_path):
    w = weights(7)
    content = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"], "b_dec": w["b_dec"]}
    content |= {"decoder.weight": w["W_dec"].T, "threshold": torch.tensor(-1.0)}
    folder = dictionary(tmp_path / "d", "BatchTopKSAE", content)
    with pytest.raises(SaeError, match="never set"):
        convert_sae(folder, tmp_path / "o")


def test_dictionary_learning_jumprelu(tmp_path):
    w = weights(8, threshold=True)
    folder = dictionary(tmp_path / "d", "JumpReluAutoEncoder", dict(w))
    expected = jumprelu(inputs() @ w["W_enc"] + w["b_enc"], w["threshold"])
    check(folder, tmp_path / "o", expected)


@pytest.mark.parametrize("transcode", [False, True])
def test_sparsify(tmp_path, transcode):
    w = weights(9)
    folder = tmp_path / ("layers.6.mlp" if transcode else "layers.6")
    folder.mkdir()
    stored = {"encoder.weight": np.ascontiguousarray(w["W_enc"].T), "encoder.bias": w["b_enc"]}
    save_file(stored | {"W_dec": w["W_dec"], "b_dec": w["b_dec"]}, folder / "sae.safetensors")
    cfg = {"d_in": D_IN, "num_latents": D_SAE, "k": 6, "activation": "topk", "transcode": transcode}
    (folder / "cfg.json").write_text(json.dumps(cfg))
    x = inputs() if transcode else inputs() - w["b_dec"]
    sae = check(folder, tmp_path / "o", top_k(relu(x @ w["W_enc"] + w["b_enc"]), 6))
    expected = "blocks.6.mlp.hook_in" if transcode else "blocks.6.hook_resid_post"
    assert str(sae.hook) == expected


def test_sparsify_refuses_groupmax(tmp_path):
    w = weights(9)
    stored = {"encoder.weight": np.ascontiguousarray(w["W_enc"].T), "encoder.bias": w["b_enc"]}
    save_file(stored | {"W_dec": w["W_dec"], "b_dec": w["b_dec"]}, tmp_path / "sae.safetensors")
    cfg = {"d_in": D_IN, "num_latents": D_SAE, "k": 6, "activation": "groupmax"}
    (tmp_path / "cfg.json").write_text(json.dumps(cfg))
    with pytest.raises(SaeError, match="groupmax"):
        convert_sae(tmp_path, tmp_path / "o")


def test_sparsify_signed_is_top_k_by_magnitude(tmp_path):
    w = weights(9)
    stored = {"encoder.weight": np.ascontiguousarray(w["W_enc"].T), "encoder.bias": w["b_enc"]}
    save_file(stored | {"W_dec": w["W_dec"], "b_dec": w["b_dec"]}, tmp_path / "sae.safetensors")
    cfg = {"d_in": D_IN, "num_latents": D_SAE, "k": 6, "activation": "topk", "signed": True}
    (tmp_path / "cfg.json").write_text(json.dumps(cfg))
    pre = (inputs() - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    largest = np.sort(abs(pre), axis=-1)[:, -6:-5]
    sae = check(tmp_path, tmp_path / "o", np.where(abs(pre) >= largest, pre, 0))
    assert sae.architecture == "abstopk"


@pytest.mark.parametrize("skip", ["skip_connection", "embed_skip"])
def test_sparsify_with_a_skip_has_no_decoder(tmp_path, skip):
    w = weights(9)
    stored = {"encoder.weight": np.ascontiguousarray(w["W_enc"].T), "encoder.bias": w["b_enc"]}
    stored |= {"W_dec": w["W_dec"], "b_dec": w["b_dec"], "W_skip": np.eye(D_IN, dtype=np.float32)}
    save_file(stored, tmp_path / "sae.safetensors")
    cfg = {"d_in": D_IN, "num_latents": D_SAE, "k": 6, "activation": "topk", skip: True}
    (tmp_path / "cfg.json").write_text(json.dumps(cfg))
    pre = (inputs() - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    assert not check(tmp_path, tmp_path / "o", top_k(relu(pre), 6)).has_decoder


def second_generation(folder, norm, *, include_norm, without=()):
    w = weights(3, threshold=True)
    stored = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"]}
    stored |= {"decoder.weight": w["W_dec"].T, "decoder.bias": w["b_dec"]}
    stored |= {"log_jumprelu_threshold": np.log(w["threshold"])}
    stored["dataset_average_activation_norm.blocks.4.hook_resid_post"] = np.float32(norm)
    kept = {n: np.ascontiguousarray(array) for n, array in stored.items() if n not in without}
    save_file(kept, folder / "sae_weights.safetensors")
    cfg = {"sae_type": "sae", "d_model": D_IN, "expansion_factor": D_SAE // D_IN}
    cfg |= {"act_fn": "jumprelu", "hook_point_in": "blocks.4.hook_resid_post"}
    cfg |= {"norm_activation": "dataset-wise", "sparsity_include_decoder_norm": include_norm}
    (folder / "config.json").write_text(json.dumps(cfg))
    return w


@pytest.mark.parametrize("norm", [[0.0], [-5.0], [np.nan], []])
def test_lm_saes_with_a_norm_that_cannot_be(tmp_path, norm):
    second_generation(tmp_path, norm, include_norm=False)
    with pytest.raises(SaeError, match="expected a positive number"):
        convert_sae(tmp_path, tmp_path / "o")


def test_lm_saes_whose_thresholds_lack_their_decoder(tmp_path):
    second_generation(tmp_path, [5.0], include_norm=True, without=["decoder.weight"])
    with pytest.raises(SaeError, match=r"lacks the matrix decoder\.weight"):
        convert_sae(tmp_path, tmp_path / "o")


@pytest.mark.parametrize("include_norm", [True, False])
def test_lm_saes_of_the_second_generation(tmp_path, include_norm):
    """A feature fires where its pre-activation times its decoder's norm exceeds the threshold."""
    mean_norm = 5.0
    scale = np.sqrt(D_IN) / mean_norm
    w = second_generation(tmp_path, [mean_norm], include_norm=include_norm)
    pre = (inputs() * scale) @ w["W_enc"] + w["b_enc"]
    norms = np.linalg.norm(w["W_dec"], axis=1) if include_norm else 1.0
    expected = np.where(pre * norms > w["threshold"], pre, 0)
    sae = check(tmp_path, tmp_path / "o", expected)
    assert str(sae.hook) == "blocks.4.hook_resid_post"


@pytest.mark.parametrize("key", ["threshold", "activation_function.threshold", None])
def test_circuit_tracer(tmp_path, key):
    w = weights(12, threshold=key is not None)
    stored = {"W_enc": np.ascontiguousarray(w["W_enc"].T), "b_enc": w["b_enc"]}
    stored |= {"W_dec": w["W_dec"], "b_dec": w["b_dec"], "W_skip": np.eye(D_IN, dtype=np.float32)}
    stored |= {key: w["threshold"]} if key else {}
    save_file(stored, tmp_path / "layer_7.safetensors")
    pre = inputs() @ w["W_enc"] + w["b_enc"]
    expected = jumprelu(pre, w["threshold"]) if key else relu(pre)
    sae = check(tmp_path / "layer_7.safetensors", tmp_path / "o", expected)
    assert (str(sae.hook), sae.has_decoder) == ("blocks.7.mlp.hook_in", False)


@pytest.mark.parametrize(("threshold", "point"), [(True, None), (False, "mlp.hook_in")])
def test_one_layer_of_a_cross_layer_transcoder(tmp_path, threshold, point):
    w = weights(13, threshold=threshold)
    stored = {"W_enc_3": np.ascontiguousarray(w["W_enc"].T), "b_enc_3": w["b_enc"]}
    stored |= {"b_dec_3": w["b_dec"]} | ({"threshold_3": w["threshold"]} if threshold else {})
    save_file(stored, tmp_path / "W_enc_3.safetensors")
    if point:
        config = f"model_name: google/gemma-2-2b\nfeature_input_hook: {point}\n"
        (tmp_path / "config.yaml").write_text(config)
    pre = inputs() @ w["W_enc"] + w["b_enc"]
    expected = jumprelu(pre, w["threshold"]) if threshold else relu(pre)
    sae = check(tmp_path / "W_enc_3.safetensors", tmp_path / "o", expected)
    assert str(sae.hook) == ("blocks.3.mlp.hook_in" if point else "blocks.3.hook_resid_mid")


@pytest.mark.parametrize("suffix", ["", "_linear"])
def test_two_linear_layers(tmp_path, suffix):
    w = weights(14)
    content = {f"encoder{suffix}.weight": w["W_enc"].T, f"encoder{suffix}.bias": w["b_enc"]}
    content |= {f"decoder{suffix}.weight": w["W_dec"].T, f"decoder{suffix}.bias": w["b_dec"]}
    torch_save(tmp_path / "Llama-3.1-8B-Instruct-SAE-l19.pth", content)
    expected = relu(inputs() @ w["W_enc"] + w["b_enc"])
    sae = check(tmp_path / "Llama-3.1-8B-Instruct-SAE-l19.pth", tmp_path / "o", expected)
    assert sae.model_name == "meta-llama/Llama-3.1-8B-Instruct"
    assert str(sae.hook) == "blocks.19.hook_resid_post"


def test_attention_z(tmp_path):
    w = weights(15)
    torch_save(tmp_path / "gpt2-small_L5_z.pt", dict(w))
    settings = {"act_name": "blocks.5.attn.hook_z", "act_size": D_IN, "dict_size": D_SAE}
    (tmp_path / "gpt2-small_L5_z_cfg.json").write_text(json.dumps(settings))
    expected = relu((inputs() - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    sae = check(tmp_path / "gpt2-small_L5_z.pt", tmp_path / "o", expected)
    assert (str(sae.hook), sae.without_value_bias) == ("blocks.5.attn.hook_z", True)


def bussmann(folder, content, **settings):
    cfg = {
        "act_size": D_IN,
        "dict_size": D_SAE,
        "top_k": 5,
        "hook_point": "blocks.8.hook_resid_pre",
    }
    torch_save(folder / "sae.pt", content)
    (folder / "config.json").write_text(json.dumps(cfg | settings))
    return folder


@pytest.mark.parametrize("kind", ["vanilla", "topk", "batchtopk", "jumprelu"])
def test_batch_topk(tmp_path, kind):
    w = weights(16, threshold=kind == "jumprelu")
    content = {k: v for k, v in w.items() if k != "threshold"}
    if kind == "jumprelu":
        content["jumprelu.log_threshold"] = np.log(w["threshold"])
    if kind == "batchtopk":
        content["threshold"] = torch.tensor(0.75)
    settings = {"sae_type": kind, "input_unit_norm": True, "use_encoder_bias": True}
    x = inputs() - inputs().mean(-1, keepdims=True)
    x = x / (x.std(-1, ddof=1, keepdims=True) + 1e-5)
    pre = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    expected = {
        "vanilla": relu(pre),
        "topk": top_k(relu(pre), 5),
        "batchtopk": jumprelu(pre, 0.75),
        "jumprelu": jumprelu(pre, w.get("threshold", 0.0)),
    }[kind]
    sae = check(bussmann(tmp_path, content, **settings), tmp_path / "o", expected)
    assert (str(sae.hook), sae.input_transform) == ("blocks.8.hook_resid_pre", "layer_norm")


def test_batch_topk_adds_its_bias_only_where_it_says_so(tmp_path):
    w = weights(16)
    plain = {"sae_type": "topk", "input_unit_norm": False}
    pre = (inputs() - w["b_dec"]) @ w["W_enc"]
    folder = bussmann(tmp_path / "a", dict(w), **plain, use_encoder_bias=False)
    check(folder, tmp_path / "o", top_k(relu(pre), 5))
    with pytest.raises(SaeError, match="lacks use_encoder_bias"):
        convert_sae(bussmann(tmp_path / "b", dict(w), **plain), tmp_path / "p")
    zeros = w | {"b_enc": np.zeros(D_SAE, np.float32)}
    check(bussmann(tmp_path / "c", zeros, **plain), tmp_path / "q", top_k(relu(pre), 5))
    with pytest.raises(SaeError, match="depend on its batch"):
        convert_sae(bussmann(tmp_path / "d", zeros, sae_type="batchtopk"), tmp_path / "r")


def test_autoencoders_of_gemmas_embeddings_read_them_scaled(tmp_path):
    w = weights(17, threshold=True)
    folder = tmp_path / "gemma-scope-2b-pt-res" / "embedding" / "width_4k" / "average_l0_6"
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **w)
    stored = inputs() / np.sqrt(D_IN)
    expected = jumprelu(stored @ w["W_enc"] + w["b_enc"], w["threshold"])
    sae = check(folder, tmp_path / "o", expected)
    assert str(sae.hook) == "blocks.0.hook_resid_pre"
    back = (expected @ w["W_dec"] + w["b_dec"]) * np.sqrt(D_IN)
    np.testing.assert_allclose(sae.reconstruct(numpy_ops, inputs()), back, rtol=1e-4, atol=1e-4)


def test_qwen_scope(tmp_path):
    w = weights(10)
    file = tmp_path / "SAE-Res-Qwen3-1.7B-Base-W32K-L0_7" / "layer9.sae.pt"
    content = {"W_enc": w["W_enc"].T, "W_dec": w["W_dec"].T, "b_enc": w["b_enc"]}
    torch_save(file, content | {"b_dec": w["b_dec"]})
    sae = check(file, tmp_path / "o", top_k(inputs() @ w["W_enc"] + w["b_enc"], 7))
    assert (sae.k, sae.model_name) == (7, "Qwen/Qwen3-1.7B-Base")
    assert str(sae.hook) == "blocks.9.hook_resid_post"


def test_qwen_scope_in_bfloat16(tmp_path):
    w = {name: torch.from_numpy(value).bfloat16() for name, value in weights(10).items()}
    file = tmp_path / "layer9.sae.pt"
    content = {"W_enc": w["W_enc"].T.contiguous(), "W_dec": w["W_dec"].T.contiguous()}
    torch.save(content | {"b_enc": w["b_enc"], "b_dec": w["b_dec"]}, file)
    pre = inputs() @ w["W_enc"].float().numpy() + w["b_enc"].float().numpy()
    check(file, tmp_path / "o", top_k(pre, 3), k=3)
    with pytest.raises(SaeError, match="give k"):
        convert_sae(file, tmp_path / "o2")


@pytest.mark.parametrize("kind", ["ReLU", "TopK"])
def test_openai(tmp_path, kind):
    w = weights(11)
    file = tmp_path / "gpt2-small" / "resid_post_mlp_v5_32k" / "autoencoders" / "8.pt"
    content = {"pre_bias": w["b_dec"], "encoder.weight": w["W_enc"].T, "latent_bias": w["b_enc"]}
    content |= {"decoder.weight": w["W_dec"].T, "activation": kind}
    content |= {"stats_last_nonzero": torch.zeros(D_SAE, dtype=torch.long)}
    x = inputs()
    if kind == "TopK":
        content |= {"activation_state_dict": {"k": 5, "postact_fn": "ReLU"}}
        x = x - x.mean(-1, keepdims=True)
        x = x / (x.std(-1, ddof=1, keepdims=True) + 1e-5)
    torch_save(file, content)
    pre = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    sae = check(file, tmp_path / "o", top_k(pre, 5) if kind == "TopK" else relu(pre))
    assert (str(sae.hook), sae.model_name) == ("blocks.8.hook_resid_post", "gpt2")


def test_pickled_objects_are_never_loaded(tmp_path):
    class Planted:
        def __reduce__(self):
            return (open, (str(tmp_path / "planted"), "w"))

    file = tmp_path / "layer1.sae.pt"
    torch.save({"cfg": Planted(), "W_enc": torch.zeros(2, 2)}, file)
    with pytest.raises(SaeError, match="never loaded"):
        convert_sae(file, tmp_path / "o", k=1)
    assert not (tmp_path / "planted").exists()
    (tmp_path / "sae.pkl.gz").write_bytes(b"x")
    with pytest.raises(SaeError, match="is a pickle"):
        convert_sae(tmp_path / "sae.pkl.gz", tmp_path / "o")


def test_numbers_of_eight_bits_are_refused(tmp_path):
    w = weights(1)
    narrow = torch.from_numpy(w["W_enc"].T.copy()).to(torch.float8_e4m3fn)
    content = {"encoder.weight": narrow, "decoder.weight": w["W_dec"].T}
    folder = dictionary(tmp_path / "in", "AutoEncoderNew", content)
    with pytest.raises(SaeError, match=r"encoder.weight is stored as torch.float8_e4m3fn"):
        convert_sae(folder, tmp_path / "o")


def test_npz_with_objects_is_refused(tmp_path):
    objects = np.array([{}], dtype=object)
    np.savez(tmp_path / "params.npz", W_enc=objects, allow_pickle=True)
    with pytest.raises(SaeError, match="pickled"):
        convert_sae(tmp_path, tmp_path / "o")
