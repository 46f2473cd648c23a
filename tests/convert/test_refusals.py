"""What is refused: each fault has its own message, and no file is left behind."""

import json
import sys

import numpy as np
import pytest

from fpo_convert.sae import convert_sae
from fpo_core.errors import SaeError
from tests.convert.sae_files import D_IN, D_SAE, cfg_v6, save_sae_lens, weights


def about(**metadata):
    return cfg_v6(metadata=metadata)


def without(name):
    return {key: value for key, value in weights().items() if key != name}


def spoiled(name, value):
    tensors = weights()
    tensors[name] = tensors[name].copy()
    tensors[name].flat[3] = value
    return tensors


W = weights()
CASES = {
    "missing": (without("b_enc"), cfg_v6(), "lacks b_enc"),
    "extra": (W | {"b_gate": W["b_enc"]}, cfg_v6(), "unknown b_gate"),
    "shape": (W | {"b_enc": W["b_enc"][:-1]}, cfg_v6(), r"b_enc has shape \(23,\)"),
    "transposed": (W | {"W_enc": np.ascontiguousarray(W["W_enc"].T)}, cfg_v6(), "transposed"),
    "d_in": (W, cfg_v6(d_in=D_IN + 1), "expected \\(9, 24\\)"),
    "d_sae": (W, cfg_v6(d_sae=D_SAE * 2), "expected \\("),
    "no d_in": (W, cfg_v6(d_in=None), "d_in None"),
    "nan": (spoiled("W_enc", np.nan), cfg_v6(), "W_enc is not finite"),
    "inf": (spoiled("b_dec", np.inf), cfg_v6(), "not finite"),
    "inf decoder": (spoiled("W_dec", -np.inf), cfg_v6(), "W_dec is not finite"),
    "k 0": (W, cfg_v6("topk", k=0), "k is 0"),
    "k none": (W, cfg_v6("topk"), "k is None"),
    "k large": (W, cfg_v6("topk", k=D_SAE + 1), "k is 25"),
    "k text": (W, cfg_v6("topk", k="5"), "k is '5'"),
    "architecture": (W, cfg_v6("sparse-tree"), "sparse-tree.*standard"),
    "matching pursuit": (W, cfg_v6("matching_pursuit"), "matching_pursuit"),
    "temporal": (W, cfg_v6("temporal"), "temporal"),
    "flag": (W, cfg_v6(apply_b_dec_to_input="no"), "apply_b_dec_to_input 'no'"),
    "rescale flag": (W, cfg_v6("topk", k=2, rescale_acts_by_decoder_norm=2), "true or false"),
    "normalisation": (W, cfg_v6(normalize_activations="odd"), "odd.*layer_norm"),
    "activation": (W, cfg_v6(activation_fn="tanh-relu"), "tanh-relu"),
    "signed": (W, cfg_v6(signed=True), "signed"),
    "no factor": (W, cfg_v6(normalize_activations="expected_average_only_in"), "norm_factor"),
    "no whitening": (W, cfg_v6(normalize_activations="covariance_whitening"), "whitened"),
    "head": (W, about(hook_head_index=3), "hook_head_index"),
    "positions": (W, about(seqpos_slice=[1, None]), "seqpos_slice"),
    "hook": (W, about(hook_name="hook_embed"), "hook_embed"),
    "integers": (W | {"b_enc": np.zeros(D_SAE, np.int32)}, cfg_v6(), "I32"),
    "scaling factor": (W | {"scaling_factor": W["b_enc"]}, cfg_v6(), "scaling_factor"),
}


def refused(folder, tmp_path, match, **options):
    out = tmp_path / "out" / "sae.safetensors"
    out.parent.mkdir()
    with pytest.raises(SaeError, match=match) as caught:
        convert_sae(folder, out, **options)
    assert list(out.parent.iterdir()) == []
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500


@pytest.mark.parametrize("case", CASES)
def test_each_fault_is_named(tmp_path, case):
    tensors, cfg, match = CASES[case]
    refused(save_sae_lens(tmp_path / "in", tensors, cfg), tmp_path, match)


def test_messages_are_distinct(tmp_path):
    messages = set()
    for number, (tensors, cfg, _) in enumerate(CASES.values()):
        folder = save_sae_lens(tmp_path / str(number), tensors, cfg)
        with pytest.raises(SaeError) as caught:
            convert_sae(folder, tmp_path / "o")
        messages.add(str(caught.value).replace(str(folder), ""))
    assert len(messages) == len(CASES)


@pytest.fixture
def folder(tmp_path):
    return save_sae_lens(tmp_path / "in", weights(), cfg_v6())


def test_truncated(folder, tmp_path):
    path = folder / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    refused(folder, tmp_path, "truncated .*not fully covered")


def test_padded(folder, tmp_path):
    path = folder / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes() + b"\0\0")
    refused(folder, tmp_path, "not fully covered")


def test_git_lfs_pointer(folder, tmp_path):
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
    (folder / "sae_weights.safetensors").write_bytes(text)
    refused(folder, tmp_path, "git lfs pull")


def rewrite_header(path, change):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    text = change(data[8 : 8 + length])
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def entry_changed(name, **values):
    def change(text):
        header = json.loads(text)
        header[name] |= values
        return json.dumps(header).encode()

    return change


def test_overlapping(folder, tmp_path):
    path = folder / "sae_weights.safetensors"
    size = D_SAE * 4
    rewrite_header(path, entry_changed("b_enc", data_offsets=[0, size]))
    refused(folder, tmp_path, "invalid offset")


def test_duplicate_key(folder, tmp_path):
    path = folder / "sae_weights.safetensors"

    def change(text):
        again = json.dumps(json.loads(text)["W_enc"]).encode()
        return text.rstrip()[:-1] + b',"W_enc":' + again + b"}"

    rewrite_header(path, change)
    refused(folder, tmp_path, "twice")


def test_dtype_that_does_not_fit(folder, tmp_path):
    path = folder / "sae_weights.safetensors"
    rewrite_header(path, entry_changed("b_enc", dtype="F64"))
    refused(folder, tmp_path, "invalid shape, data type")


def test_header_longer_than_the_file(folder, tmp_path):
    path = folder / "sae_weights.safetensors"
    path.write_bytes((1 << 40).to_bytes(8, "little") + path.read_bytes()[8:])
    refused(folder, tmp_path, "header too large")


def test_missing_files(folder, tmp_path):
    (folder / "sae_weights.safetensors").unlink()
    refused(folder, tmp_path, "cannot be read")


def test_missing_configuration(folder, tmp_path):
    (folder / "cfg.json").unlink()
    refused(folder, tmp_path, "cfg.json cannot be read")


def test_configuration_is_not_json(folder, tmp_path):
    (folder / "cfg.json").write_text("{'d_in': 8}")
    refused(folder, tmp_path, "not JSON")


def test_low_precision_overflow(tmp_path):
    folder = save_sae_lens(tmp_path / "in", spoiled("W_enc", 1e6), cfg_v6())
    refused(folder, tmp_path, "cannot be held in F16", dtype="float16")


@pytest.mark.parametrize(
    ("name", "value", "cfg"),
    [
        ("norm_factor", 2.0, cfg_v6()),
        ("norm_factor", 2.0, cfg_v6(normalize_activations="layer_norm")),
        ("k", 3, cfg_v6()),
    ],
)
def test_options_that_would_change_nothing(tmp_path, name, value, cfg):
    folder = save_sae_lens(tmp_path / "in", W, cfg)
    refused(folder, tmp_path, f"{name} is set, and .* changes nothing", **{name: value})


def test_centring_where_a_format_has_none(tmp_path):
    np.savez(tmp_path / "params.npz", **weights(threshold=True))
    refused(tmp_path / "params.npz", tmp_path, "centre is set", centre=True)


def test_unknown_dtype_and_format(folder, tmp_path):
    with pytest.raises(SaeError, match="float32, float16"):
        convert_sae(folder, tmp_path / "o", dtype="int8")
    with pytest.raises(SaeError, match="gemma-scope"):
        convert_sae(folder, tmp_path / "o", format="gguf")


def test_nothing_there(tmp_path):
    with pytest.raises(SaeError, match="not there"):
        convert_sae(tmp_path / "absent", tmp_path / "o")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SaeError, match="no format"):
        convert_sae(tmp_path / "empty", tmp_path / "o")


def test_a_folder_as_output(folder, tmp_path):
    with pytest.raises(SaeError, match="is a folder"):
        convert_sae(folder, tmp_path)


def test_pt_files_without_torch(tmp_path, monkeypatch):
    (tmp_path / "layer1.sae.pt").write_bytes(b"PK")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SaeError, match=r"fpo-mlx\[torch\]"):
        convert_sae(tmp_path / "layer1.sae.pt", tmp_path / "o", k=1)


@pytest.mark.parametrize(
    "name",
    [
        "user/repo:../secret",
        "user/repo:/etc",
        "user/repo:a\\b",
        "user/repo:a/../b",
        "user/..:x",
        "user/repo:a/*",
        "not a name:x",
    ],
)
def test_hub_names_that_leave_the_repository(name, tmp_path):
    with pytest.raises(SaeError, match="hub"):
        convert_sae(name, tmp_path / "o")
