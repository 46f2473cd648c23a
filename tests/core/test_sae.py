"""Canonical autoencoders: encode on three backends, gradients, ties, loading, hooks, fit."""

import dataclasses
import json

import mlx.core as mx
import numpy as np
import pytest
import torch

import fpo_mlx.ops
import fpo_torch.ops
from fpo_core.arrays import numpy_ops
from fpo_core.errors import SaeError
from fpo_core.io.writer import float_tensor
from fpo_core.sae.compatibility import check_compatible
from fpo_core.sae.hook import SITES, Hook
from fpo_core.sae.metadata import ARCHITECTURES, TRANSFORMS, SaeMeta
from fpo_core.sae.sae import Sae, load_sae
from fpo_core.sae.writer import write_sae

D_IN, D_SAE, K = 4, 10, 3


def ramp(*shape, scale=1.0, shift=0.0):
    """Deterministic numbers without ties, of both signs."""
    return (np.sin(np.arange(np.prod(shape)) * 1.7 + shift) * scale).reshape(shape)


def make(architecture="relu", transform="none", dtype=np.float32, **fields):
    extra = {}
    if architecture == "jumprelu":
        extra = {"threshold": abs(ramp(D_SAE, scale=0.4))}
    if architecture == "gated":
        extra = {"r_mag": ramp(D_SAE, scale=0.3), "b_mag": ramp(D_SAE, shift=2.0)}
    arrays = {
        "W_enc": ramp(D_IN, D_SAE),
        "b_enc": ramp(D_SAE, scale=0.2),
        "W_dec": ramp(D_SAE, D_IN, shift=1.0),
        "b_dec": ramp(D_IN, shift=3.0),
    }
    arrays = {name: value.astype(dtype) for name, value in (arrays | extra).items()}
    k = K if architecture in ("topk", "abstopk") else None
    settings = {"architecture": architecture, "input_transform": transform, "k": k}
    return Sae(d_in=D_IN, d_sae=D_SAE, **settings, **arrays, **fields)


def save(sae, path, dtype="F32"):
    meta_fields = {f.name: getattr(sae, f.name) for f in dataclasses.fields(SaeMeta)}
    tensors = [
        float_tensor(
            name, dtype if name.startswith("W_") else "F32", array.shape, lambda a=array: iter([a])
        )
        for name, array in sae.arrays().items()
    ]
    write_sae(path, SaeMeta(**meta_fields), tensors)
    return path


H = ramp(2, 5, D_IN, scale=2.0, shift=0.3)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_backends_agree_with_float64(architecture, transform):
    expected = make(architecture, transform, np.float64).encode(numpy_ops, H)
    assert expected.dtype == np.float64
    assert expected.shape == (2, 5, D_SAE)
    sae, h = make(architecture, transform), H.astype(np.float32)
    for found in (
        sae.encode(numpy_ops, h),
        sae.encode(fpo_torch.ops, torch.from_numpy(h)).numpy(),
        np.array(sae.encode(fpo_mlx.ops, mx.array(h))),
        sae.to(fpo_torch.ops, torch.zeros(1)).encode(fpo_torch.ops, torch.from_numpy(h)).numpy(),
    ):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_agree_with_finite_differences(architecture, transform):
    sae = make(architecture, transform, np.float64)
    weights = ramp(2, 5, D_SAE, shift=0.9)
    h = torch.from_numpy(H).requires_grad_()
    (sae.encode(fpo_torch.ops, h) * torch.from_numpy(weights)).sum().backward()
    step, numeric = 1e-6, np.zeros_like(H)
    for index in np.ndindex(*H.shape):
        moved = [H.copy(), H.copy()]
        moved[0][index] += step
        moved[1][index] -= step
        up, down = ((sae.encode(numpy_ops, m) * weights).sum() for m in moved)
        numeric[index] = (up - down) / (2 * step)
    np.testing.assert_allclose(h.grad.numpy(), numeric, rtol=1e-5, atol=1e-6)
    narrow = make(architecture, transform)
    gradient = mx.grad(lambda x: (narrow.encode(fpo_mlx.ops, x) * mx.array(weights)).sum())
    found = np.array(gradient(mx.array(H.astype(np.float32))))
    np.testing.assert_allclose(found, numeric, rtol=1e-3, atol=1e-4)


def test_activations_by_hand():
    """W is the identity, so pre-activations are the input plus b."""
    identity = {"W_enc": np.eye(4, dtype=np.float32), "b_enc": np.float32([0, 0, 0, 0.5])}
    h = np.float32([[1.0, -3.0, 2.0, -1.0]])

    def features(architecture, **more):
        sae = Sae(architecture=architecture, d_in=4, d_sae=4, **identity, **more)
        return sae.encode(numpy_ops, h).tolist()

    assert features("relu") == [[1, 0, 2, 0]]
    assert features("topk", k=1) == [[0, 0, 2, 0]]
    assert features("topk", k=3) == [[1, 0, 2, 0]]
    assert features("abstopk", k=2) == [[0, -3, 2, 0]]
    assert features("jumprelu", threshold=np.float32([1, 0, 1, 0])) == [[0, 0, 2, 0]]
    gate = {"r_mag": np.log(np.float32([2, 2, 2, 2])), "b_mag": np.float32([0, 9, -9, 0])}
    assert features("gated", **gate) == [[2, 0, 0, 0]]


def test_input_transforms_by_hand():
    identity = {"W_enc": np.eye(2), "b_enc": np.zeros(2)}
    h = np.array([[3.0, 4.0]])

    def features(transform, x=h):
        sae = Sae(
            architecture="abstopk", k=2, input_transform=transform, d_in=2, d_sae=2, **identity
        )
        return sae.encode(numpy_ops, x)

    # mean 3.5 and unbiased deviation √0.5
    np.testing.assert_allclose(features("layer_norm"), [[-0.5, 0.5]] / (np.sqrt(0.5) + 1e-5))
    np.testing.assert_allclose(features("constant_norm_rescale"), np.sqrt(2) * h / 5)
    for transform in TRANSFORMS:
        assert not features(transform, np.zeros((1, 2))).any()


@pytest.mark.parametrize("transform", ["layer_norm", "constant_norm_rescale"])
def test_constant_inputs_have_finite_gradients(transform):
    h = torch.zeros(3, D_IN, dtype=torch.float64, requires_grad=True)
    make("relu", transform, np.float64).encode(fpo_torch.ops, h).sum().backward()
    assert torch.isfinite(h.grad).all()


def test_ties_go_to_the_lower_index():
    sae = Sae(
        architecture="topk",
        k=2,
        d_in=1,
        d_sae=4,
        W_enc=np.ones((1, 4), np.float32),
        b_enc=np.zeros(4),
    )
    for found in (
        sae.encode(numpy_ops, np.float32([[1.0]])),
        sae.encode(fpo_torch.ops, torch.ones(1, 1)),
        sae.encode(fpo_mlx.ops, mx.ones((1, 1))),
    ):
        assert found.tolist() == [[1, 1, 0, 0]]


def undone(h):
    """SAELens divides by std + 1e-5 and multiplies by std."""
    mean, std = h.mean(-1, keepdims=True), h.std(-1, ddof=1, keepdims=True)
    return (h - mean) / (std + 1e-5) * std + mean


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_reconstruction_undoes_the_transform(transform):
    """An encoder and decoder that are identities on non-negative inputs give h back."""
    eye = np.eye(D_IN)
    arrays = {"W_enc": np.hstack([eye, -eye]), "b_enc": np.zeros(2 * D_IN)}
    arrays |= {"W_dec": np.vstack([eye, -eye]), "b_dec": np.zeros(D_IN)}
    sae = Sae(architecture="relu", input_transform=transform, d_in=D_IN, d_sae=2 * D_IN, **arrays)
    expected = undone(H) if transform == "layer_norm" else H
    np.testing.assert_allclose(sae.reconstruct(numpy_ops, H), expected, rtol=1e-9)
    with pytest.raises(SaeError, match="encoder_only"):
        dataclasses.replace(sae, W_dec=None).reconstruct(numpy_ops, H)


@pytest.mark.parametrize("transform", ["none", "layer_norm"])
def test_the_mean_of_a_centred_input_is_added_once(transform):
    """Centred, the same identities give h − mean h; layer_norm's shift is that mean already."""
    eye = np.eye(D_IN)
    W_enc = np.hstack([eye, -eye]) - np.hstack([eye, -eye]).mean(0)
    arrays = {"W_enc": W_enc, "b_enc": np.zeros(2 * D_IN)}
    arrays |= {"W_dec": np.vstack([eye, -eye]), "b_dec": np.zeros(D_IN)}
    meta = {"architecture": "relu", "d_in": D_IN, "d_sae": 2 * D_IN, "centred": True}
    sae = Sae(input_transform=transform, **meta, **arrays)
    assert abs(H.mean(-1)).min() > 0.01
    expected = undone(H) if transform == "layer_norm" else H
    np.testing.assert_allclose(sae.reconstruct(numpy_ops, H), expected, rtol=1e-9)


def test_a_wrong_width_is_refused():
    with pytest.raises(SaeError, match="width 5, expected d_in = 4"):
        make().encode(numpy_ops, np.zeros((2, 5)))


@pytest.mark.parametrize(("dtype", "rtol"), [("F32", 0), ("F16", 2**-11), ("BF16", 2**-8)])
def test_files_keep_everything(tmp_path, dtype, rtol):
    about = {"hook": Hook(3, "mlp_out"), "model_name": "m", "untrained_tokens": ("bos", "id:7")}
    about |= {"folded": ("centring",), "centred": True, "source": {"revision": "x"}}
    sae = make("jumprelu", "layer_norm", neuronpedia_id="m/3-mlp", **about)
    found = load_sae(save(sae, tmp_path / "sae", dtype))
    for field in dataclasses.fields(SaeMeta):
        if field.name != "payload_sha256":
            assert getattr(found, field.name) == getattr(sae, field.name)
    for name, array in sae.arrays().items():
        loaded = found.arrays()[name]
        assert loaded.dtype == np.float32
        np.testing.assert_allclose(loaded, array, rtol=rtol if name.startswith("W_") else 0)


def test_bfloat16_rounds_as_torch_does(tmp_path):
    sae = make()
    # Half-way between two bfloat16 numbers, from either side of the even one.
    sae.W_enc.flat[:3] = np.uint32([0x3F808000, 0x3F818000, 0xBF828000]).view(np.float32)
    found = load_sae(save(sae, tmp_path / "sae", "BF16"))
    expected = torch.from_numpy(sae.W_enc).bfloat16().float().numpy()
    np.testing.assert_array_equal(found.W_enc, expected)


def test_a_file_that_is_cut_or_changed_under_a_run_is_an_error(tmp_path):
    """A memory map would end the process, or give other weights."""
    path = save(make(), tmp_path / "sae")
    data = path.read_bytes()
    for damage in (data[:-40], data[:-1] + bytes([data[-1] ^ 1])):
        path.write_bytes(data)
        sae = load_sae(path)
        path.write_bytes(damage)
        with pytest.raises(SaeError, match="sae was changed or cut short while it was in use"):
            sae.to(numpy_ops, np.float32(0))


def changed_metadata(path, **values):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] |= values
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"hook": "blocks.9.hook_resid_post"}, "changed after"),
        ({"architecture": "topk"}, "changed after"),
        ({"surprise": "x"}, "changed after"),
        ({"format_version": "2"}, "format version '2'"),
        ({"format": "other"}, "run convert_sae"),
    ],
)
def test_a_changed_header_is_refused(tmp_path, values, match):
    path = save(make(), tmp_path / "sae")
    changed_metadata(path, **values)
    with pytest.raises(SaeError, match=match):
        load_sae(path)


def test_a_changed_payload_is_refused(tmp_path):
    path = save(make(), tmp_path / "sae")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(SaeError, match="weights that were changed"):
        load_sae(path)


def test_numbers_that_are_not_finite_leave_no_file(tmp_path):
    sae = make()
    sae.W_dec[2, 2] = np.nan
    with pytest.raises(SaeError, match="W_dec is not finite"):
        save(sae, tmp_path / "sae")
    assert not list(tmp_path.iterdir())


def test_large_finite_numbers_are_not_taken_for_infinite(tmp_path):
    sae = make()
    sae.W_dec[:] = 3e38
    assert np.asarray(load_sae(save(sae, tmp_path / "sae")).W_dec).min() > 2.9e38


@pytest.mark.parametrize(
    ("name", "layer", "site"),
    [
        ("blocks.2.hook_resid_post", 2, "resid_post"),
        ("blocks.11.hook_resid_pre", 11, "resid_pre"),
        ("blocks.0.hook_resid_mid", 0, "resid_mid"),
        ("blocks.5.hook_mlp_out", 5, "mlp_out"),
        ("blocks.5.hook_attn_out", 5, "attn_out"),
        ("blocks.5.attn.hook_z", 5, "z"),
        ("blocks.5.mlp.hook_in", 5, "mlp_in"),
        ("model.layers.7", 7, "resid_post"),
        ("model.language_model.layers.7.output", 7, "resid_post"),
        ("transformer.h.3", 3, "resid_post"),
        ("model.layers.4.self_attn.o_proj.input", 4, "z"),
        ("model.layers.4.pre_feedforward_layernorm.output", 4, "mlp_in"),
    ],
)
def test_hook_names(name, layer, site):
    assert Hook.parse(name) == Hook(layer, site)


@pytest.mark.parametrize("site", SITES)
def test_hook_names_round_trip(site):
    assert Hook.parse(str(Hook(13, site))) == Hook(13, site)


@pytest.mark.parametrize(
    "name",
    ["", "hook_embed", "blocks.x.hook_z", "blocks.1.hook_mlp_in", "model.layers.1.norm", "7"],
)
def test_hooks_without_a_place_are_refused(name):
    with pytest.raises(SaeError, match="not supported"):
        Hook.parse(name)


CONFIG = {"hidden_size": D_IN, "num_hidden_layers": 6, "num_attention_heads": 2, "head_dim": 3}


def test_fit():
    meta = SaeMeta(architecture="relu", d_in=D_IN, d_sae=8, hook=Hook(5, "resid_post"))
    assert check_compatible(meta, CONFIG) == Hook(5, "resid_post")
    assert check_compatible(meta, {"text_config": CONFIG}, Hook(1, "mlp_out")) == Hook(1, "mlp_out")
    heads = dataclasses.replace(meta, d_in=6, hook=Hook(5, "z"))
    assert check_compatible(heads, CONFIG) == Hook(5, "z")
    for wrong, match in (
        (dataclasses.replace(meta, hook=Hook(6, "resid_post")), "6 layers"),
        (dataclasses.replace(meta, d_in=6), "hidden size at .* is 4"),
        (dataclasses.replace(meta, hook=Hook(5, "z")), "width of all heads .* is 6"),
        (dataclasses.replace(meta, hook=None), "set hook"),
    ):
        with pytest.raises(SaeError, match=match):
            check_compatible(wrong, CONFIG)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_mean_pre_activation_is_the_mean_of_pre_activations(architecture, transform):
    sae, h = make(architecture, transform), ramp(2, 3, D_IN, shift=0.3)
    mask = np.array([[1.0, 0, 1], [1, 1, 1]])
    linear = dataclasses.replace(make("relu", transform), b_enc=np.full(D_SAE, 1e3, np.float32))
    tokens = linear.encode(numpy_ops, h) - 1e3 + sae.b_enc  # far above 0, relu is the identity
    expected = (tokens * mask[..., None]).sum(1) / mask.sum(1)[:, None]
    found = sae.mean_pre_activation(numpy_ops, h, mask)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
