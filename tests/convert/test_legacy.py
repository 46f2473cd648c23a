"""SAELens configurations of v0.5 to v5 and the traps of v6, against the formulas of their time."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from fpo_convert.sae import convert_sae
from fpo_core.arrays import numpy_ops
from fpo_core.errors import SaeError
from fpo_core.sae.sae import load_sae
from tests.convert.sae_files import D_IN, D_SAE, cfg_v6, inputs, relu, save_sae_lens, top_k, weights

V05 = {
    "model_name": "gemma-2b",
    "hook_point": "blocks.6.hook_resid_post",
    "hook_point_layer": 6,
    "hook_point_head_index": None,
    "d_in": D_IN,
    "expansion_factor": 3,
    "d_sae": D_SAE,
    "dtype": "torch.float32",
    "l1_coefficient": 8e-5,
    "noise_scale": 0.0,
}
V1 = V05 | {"activation_fn": "relu", "normalize_activations": False, "prepend_bos": True}
V2 = V1 | {"apply_b_dec_to_input": False, "sae_lens_training_version": "2.1.0"}
V3 = {
    "architecture": "gated",
    "d_in": D_IN,
    "d_sae": D_SAE,
    "activation_fn_str": "relu",
    "apply_b_dec_to_input": True,
    "finetuning_scaling_factor": False,
    "context_size": 128,
    "model_name": "mistral-7b",
    "hook_name": "blocks.8.hook_resid_pre",
    "hook_layer": 8,
    "hook_head_index": None,
    "prepend_bos": False,
    "dtype": "torch.float32",
    "normalize_activations": "none",
    "sae_lens_training_version": "3.18.0",
}
V5 = V3 | {
    "architecture": "standard",
    "activation_fn_str": "topk",
    "activation_fn_kwargs": {"k": 4},
    "normalize_activations": "layer_norm",
    "seqpos_slice": [None],
    "sae_lens_training_version": "5.3.0",
}


def encode(tmp_path, tensors, cfg, **options):
    folder = save_sae_lens(tmp_path / "in", tensors, cfg)
    report = convert_sae(folder, tmp_path / "out.safetensors", **options)
    sae = load_sae(tmp_path / "out.safetensors")
    return sae.encode(numpy_ops, inputs()), sae, report


def close(found, expected):
    assert (expected > 0).any()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * expected.max())


def layer_norm(x):
    x = x - x.mean(-1, keepdims=True)
    return x / (x.std(-1, ddof=1, keepdims=True) + 1e-5)


@pytest.mark.parametrize(("cfg", "subtract"), [(V05, True), (V1, True), (V2, False)])
def test_v05_to_v2(tmp_path, cfg, subtract):
    w = weights(1)
    found, sae, _ = encode(tmp_path, w, cfg)
    x = inputs() - w["b_dec"] if subtract else inputs()
    close(found, relu(x @ w["W_enc"] + w["b_enc"]))
    assert str(sae.hook) == "blocks.6.hook_resid_post"


def test_a_scaling_factor_of_ones_is_dropped(tmp_path):
    w = weights(1) | {"scaling_factor": np.ones(D_SAE, np.float32)}
    found, sae, _ = encode(tmp_path, w, V1)
    close(found, relu((inputs() - w["b_dec"]) @ w["W_enc"] + w["b_enc"]))
    assert sae.folded == ("b_dec_subtraction",)


def test_a_scaling_factor_touches_the_decoder_alone(tmp_path):
    factor = np.linspace(0.5, 2, D_SAE, dtype=np.float32)
    w = weights(1) | {"scaling_factor": factor}
    found, sae, _ = encode(tmp_path, w, V1 | {"finetuning_scaling_factor": True})
    close(found, relu((inputs() - w["b_dec"]) @ w["W_enc"] + w["b_enc"]))
    np.testing.assert_allclose(sae.W_dec, w["W_dec"] * factor[:, None], rtol=1e-6)


def test_v3_gated(tmp_path):
    w = weights(2, gated=True)
    found, sae, _ = encode(tmp_path, w, V3)
    projected = (inputs() - w["b_dec"]) @ w["W_enc"]
    magnitude = relu(projected * np.exp(w["r_mag"]) + w["b_mag"])
    close(found, np.where(projected + w["b_gate"] > 0, magnitude, 0))
    assert sae.untrained_tokens == ("bos",)


def test_v5_topk_by_activation_function(tmp_path):
    w = weights(3)
    found, sae, _ = encode(tmp_path, w, V5)
    close(found, top_k((layer_norm(inputs()) - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 4))
    assert (sae.architecture, sae.k, sae.input_transform) == ("topk", 4, "layer_norm")


def test_v2_boolean_normalisation_with_a_factor(tmp_path):
    w = weights(4)
    found, sae, _ = encode(tmp_path, w, V1 | {"normalize_activations": True}, norm_factor=0.25)
    close(found, relu((inputs() * 0.25 - w["b_dec"]) @ w["W_enc"] + w["b_enc"]))
    x = inputs()
    features = relu((x * 0.25 - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    expected = (features @ w["W_dec"] + w["b_dec"]) / 0.25
    np.testing.assert_allclose(sae.reconstruct(numpy_ops, x), expected, rtol=1e-4, atol=1e-4)


def test_v5_factor_from_the_activation_store(tmp_path):
    w = weights(4)
    folder = save_sae_lens(
        tmp_path / "in",
        w,
        V3 | {"architecture": "standard"} | {"normalize_activations": "expected_average_only_in"},
    )
    factor = {
        "estimated_norm_scaling_factor": np.array([0.5], np.float32),
        "n": np.zeros(1, np.int64),
    }
    save_file(factor, folder / "activations_store_state.safetensors")
    convert_sae(folder, tmp_path / "o")
    found = load_sae(tmp_path / "o").encode(numpy_ops, inputs())
    close(found, relu((inputs() * 0.5 - w["b_dec"]) @ w["W_enc"] + w["b_enc"]))


GPT2 = V1 | {"model_name": "gpt2-small", "hook_point": "blocks.8.hook_resid_pre"}


@pytest.mark.parametrize(
    ("cfg", "centre", "centred"),
    [
        (GPT2, None, True),
        (GPT2, False, False),
        (V1, True, True),
        (V1, None, False),
        (GPT2 | {"sae_lens_training_version": "3.19.2"}, None, False),
        (GPT2 | {"sae_lens_training_version": "3.19.1"}, None, True),
        (GPT2 | {"hook_point": "blocks.3.attn.hook_z"}, None, False),
        (GPT2 | {"model_from_pretrained_kwargs": {"center_writing_weights": False}}, None, False),
    ],
)
def test_centring_of_the_gpt2_era(tmp_path, cfg, centre, centred):
    w = weights(5)
    found, sae, _ = encode(tmp_path, w, cfg, centre=centre)
    x = inputs() - inputs().mean(-1, keepdims=True) if centred else inputs()
    close(found, relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]))
    assert sae.centred is centred


def test_reconstruction_adds_the_mean_back(tmp_path):
    w = weights(5)
    found, sae, _ = encode(tmp_path, w, GPT2)
    mean = inputs().mean(-1, keepdims=True)
    expected = found @ w["W_dec"] + w["b_dec"] + mean
    np.testing.assert_allclose(sae.reconstruct(numpy_ops, inputs()), expected, rtol=1e-4, atol=1e-4)


def test_log_threshold(tmp_path):
    w = weights(6, threshold=True)
    stored = {k: v for k, v in w.items() if k != "threshold"}
    stored["log_threshold"] = np.log(w["threshold"])
    found, _, _ = encode(tmp_path, stored, cfg_v6("jumprelu"))
    pre = (inputs() - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    close(found, np.where(pre > w["threshold"], relu(pre), 0))


def faulty(version="6.20.0", **details):
    details = {"rescale_acts_by_decoder_norm": True} | details
    about = {"training_architecture": "batchtopk", "training_architecture_details": details}
    return cfg_v6("jumprelu", metadata=about | {"sae_lens_training_version": version})


def run_faulty(tmp_path, cfg, runner=None, **options):
    import json

    w = weights(7, threshold=True)
    folder = save_sae_lens(tmp_path / "in", w, cfg)
    if runner is not None:
        (folder / "runner_cfg.json").write_text(json.dumps({"sae": runner}))
    report = convert_sae(folder, tmp_path / "o", **options)
    return load_sae(tmp_path / "o").threshold / w["threshold"], report


NORMALISED = {"normalize_activations": "expected_average_only_in"}


def test_faulty_thresholds_are_corrected_with_the_factor(tmp_path):
    ratio, report = run_faulty(tmp_path, faulty(), NORMALISED, norm_factor=4.0)
    np.testing.assert_allclose(ratio, 0.25, rtol=1e-6)
    assert not report.warnings


def test_the_factor_that_the_warning_asks_for_corrects_what_is_undecided(tmp_path):
    """The hub's files have no runner_cfg.json, which alone says how inputs were normalised."""
    ratio, report = run_faulty(tmp_path, faulty(), norm_factor=4.0)
    np.testing.assert_allclose(ratio, 0.25, rtol=1e-6)
    assert not report.warnings


@pytest.mark.parametrize("runner", [NORMALISED, None])
def test_faulty_thresholds_are_warned_about_without(tmp_path, runner):
    ratio, report = run_faulty(tmp_path, faulty(), runner)
    np.testing.assert_array_equal(ratio, 1)
    assert "6.54.8" in report.warnings[0]


@pytest.mark.parametrize(
    ("cfg", "runner"),
    [
        (faulty("6.54.9"), NORMALISED),
        (faulty("6.13.9"), NORMALISED),
        (faulty(rescale_acts_by_decoder_norm=False), NORMALISED),
        (faulty(), {"normalize_activations": "none"}),
        (cfg_v6("jumprelu", metadata={"training_architecture": "jumprelu"}), NORMALISED),
    ],
)
def test_sound_thresholds_are_left_alone(tmp_path, cfg, runner):
    ratio, report = run_faulty(tmp_path, cfg, runner)
    np.testing.assert_array_equal(ratio, 1)
    assert not report.warnings
    with pytest.raises(SaeError, match="norm_factor is set"):
        run_faulty(tmp_path, cfg, runner, norm_factor=4.0)
