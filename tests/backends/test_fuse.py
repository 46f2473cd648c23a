"""A merged model has the adapter's logits, in transformers and in mlx-lm, whoever computes them."""

import importlib
import json

import numpy as np
import pytest
from safetensors import safe_open

from fpo_core.adapters.lora import Adapter, row_norms
from fpo_core.adapters.merge import merge, write_fused
from fpo_core.adapters.merge_check import check_fused, probe_tokens
from fpo_core.errors import ModelError
from fpo_core.models.folder import ModelFolder, flatten_rope
from fpo_core.models.weights import ModelWeights
from tests.backends.families import FAMILIES, write_family, write_quantised
from tests.backends.support import shaken
from tests.helpers import BACKENDS

PROBE = probe_tokens(64)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """The folder of a family's tiny model in a precision, or quantised to 4 bits; written once."""
    folders = {}

    def find(family, dtype="float32"):
        key = family, dtype
        if key not in folders:
            folder = tmp_path_factory.mktemp(f"{family}-{dtype}") / "model"
            if dtype == "quantised":
                folders[key] = write_quantised(find(family), folder)
            else:
                folders[key] = write_family(family, folder, dtype)
        return folders[key]

    return find


def adapted(make_policy, backend, folder, kind, scale=0.1):
    """An adapter on the last two blocks, and logits without and with it."""
    policy = make_policy(
        backend, folder, sae=None, fine_tune_type=kind, num_layers=2, rank=4, scale=3.0
    )
    base = policy.logits(PROBE)
    policy.load_trained(shaken(policy.trained(), scale))
    return Adapter(4, 3.0, 0.0, 2, policy.trained()), base, policy.logits(PROBE)


def through_libraries(folder):
    """Logits of a model folder by transformers and by mlx-lm, as each opens it by itself."""
    torch, transformers, mx = map(importlib.import_module, ("torch", "transformers", "mlx.core"))
    utils = importlib.import_module("mlx_lm.utils")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        yield model(torch.from_numpy(PROBE).long()).logits.numpy()
    model, _ = utils.load_model(folder)
    model.set_dtype(mx.float32)
    yield np.array(model(mx.array(PROBE)))


def dequantiser(folder):
    model = ModelFolder(folder, "")
    return importlib.import_module("fpo_mlx.dequantise").Dequantiser(
        model.weight_files, model.quantisation
    )


def dtypes_in(folder):
    (file,) = folder.glob("*.safetensors")
    with safe_open(file, "np") as opened:
        names = opened.keys()
        return {opened.get_slice(name).get_dtype() for name in names}


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_float32_agrees_within_1e_4(make_policy, bases, tmp_path, family, kind):
    folder = bases(family)
    adapter, base, expected = adapted(make_policy, "torch", folder, kind)
    written = write_fused(ModelFolder(folder, ""), adapter, tmp_path)
    assert written.dtypes == ["float32"]
    for found in through_libraries(tmp_path):
        check = check_fused(base, expected, found, written.dtypes)
        assert check.largest < 1e-4
        assert check.moved > 0.05
        with pytest.raises(ModelError, match="differ from the adapter's"):
            check_fused(base, expected, base, written.dtypes)
    names = [set(ModelWeights.open(ModelFolder(f, ""))._file_of) for f in (folder, tmp_path)]
    assert names[0] == names[1]  # tied embeddings stay tied: no head appears


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "phi3"])
def test_a_quantised_base_is_dequantised(make_policy, bases, tmp_path, family, kind):
    folder = bases(family, "quantised")
    adapter, base, expected = adapted(make_policy, "mlx", folder, kind)
    written = write_fused(
        ModelFolder(folder, ""), adapter, tmp_path, dequantiser=dequantiser(folder)
    )
    config = json.loads((tmp_path / "config.json").read_text())
    assert not {"quantization", "quantization_config"} & set(config)
    for found in through_libraries(tmp_path):
        check = check_fused(base, expected, found, written.dtypes)
        assert check.rms < 1e-4 * check.moved  # the scales are float32 here: nothing is rounded
        with pytest.raises(ModelError, match="differ from the adapter's"):
            check_fused(base, expected, base, ["bfloat16"])


@pytest.mark.parametrize("mode", ["affine", "mxfp4"])
def test_a_dequantised_base_has_the_precision_of_its_scales(make_policy, bases, tmp_path, mode):
    folder = write_quantised(bases("llama", "bfloat16"), tmp_path / "base", mode=mode)
    adapter, base, expected = adapted(make_policy, "mlx", folder, "dora")
    written = write_fused(
        ModelFolder(folder, ""), adapter, tmp_path / "out", dequantiser=dequantiser(folder)
    )
    assert written.dtypes == ["bfloat16"]  # mxfp4's scales are bytes and say nothing
    for found in through_libraries(tmp_path / "out"):
        check = check_fused(base, expected, found, written.dtypes)
        assert check.rms < 0.03 * check.moved


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_precision_of_the_base_is_kept_unless_asked(make_policy, bases, tmp_path, backend):
    folder = bases("qwen2", "bfloat16")
    adapter, base, expected = adapted(make_policy, backend, folder, "lora")
    kept = write_fused(ModelFolder(folder, ""), adapter, tmp_path / "kept")
    fine = write_fused(ModelFolder(folder, ""), adapter, tmp_path / "fine", dtype="float32")
    assert (kept.dtypes, fine.dtypes) == (["bfloat16"], ["float32"])
    assert dtypes_in(tmp_path / "kept") == {"BF16"}
    assert dtypes_in(tmp_path / "fine") == {"F32"}
    assert json.loads((tmp_path / "fine" / "config.json").read_text())["dtype"] == "float32"
    for found in through_libraries(tmp_path / "kept"):
        check_fused(base, expected, found, kept.dtypes)
        with pytest.raises(ModelError, match="expected at most"):
            check_fused(base, expected, found, ["float32"])
    for found in through_libraries(tmp_path / "fine"):
        check_fused(base, expected, found, fine.dtypes)


def test_an_adapter_lost_in_rounding_is_refused(make_policy, bases, tmp_path):
    folder = bases("qwen2", "bfloat16")
    adapter, base, expected = adapted(make_policy, "torch", folder, "lora", scale=0.0005)
    for dtype, lost in ((None, True), ("float32", False)):
        out = tmp_path / str(dtype)
        written = write_fused(ModelFolder(folder, ""), adapter, out, dtype=dtype)
        found = next(through_libraries(out))
        if lost:
            with pytest.raises(ModelError, match="rounding loses it"):
                check_fused(base, expected, found, written.dtypes)
        else:
            check_fused(base, expected, found, written.dtypes)


def test_shards_stay_shards(make_policy, bases, tmp_path):
    transformers = importlib.import_module("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(bases("llama"))
    model.save_pretrained(tmp_path / "parts", max_shard_size="60KB")
    names = [path.name for path in ModelFolder(tmp_path / "parts", "").weight_files]
    assert len(names) > 1
    adapter, base, expected = adapted(make_policy, "torch", bases("llama"), "lora")
    (tmp_path / "parts" / "consolidated.safetensors").write_bytes(b"of another layout")
    written = write_fused(ModelFolder(tmp_path / "parts", ""), adapter, tmp_path / "out")
    assert [path.name for path in ModelFolder(tmp_path / "out", "").weight_files] == names
    for found in through_libraries(tmp_path / "out"):
        check_fused(base, expected, found, written.dtypes)


def test_an_adapter_of_another_model_is_refused(make_policy, bases, tmp_path):
    adapter, *_ = adapted(make_policy, "torch", bases("llama"), "lora")
    with pytest.raises(ModelError, match=r"stores no weight h\.2\.mlp\.down_proj"):
        write_fused(ModelFolder(bases("gpt2"), "gpt2"), adapter, tmp_path)
    with pytest.raises(ModelError, match=r"for a weight of shape \(32, 48\), .* \(32, 4\)"):
        merge(np.zeros((32, 4), np.float32), adapter, "2.mlp.down_proj")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_fully_trained_model_opens_in_both_libraries(
    make_policy, bases, tmp_path, family, backend
):
    if backend == "mlx" and family in ("gpt2", "gpt_neox"):
        with pytest.raises(ModelError, match=f"names the weights of {family} otherwise"):
            make_policy(backend, bases(family), sae=None, fine_tune_type="full")
        return
    policy = make_policy(backend, bases(family), sae=None, fine_tune_type="full")
    policy.load_trained(shaken(policy.trained(), 0.02))
    policy.save_model(tmp_path)
    flatten_rope(tmp_path / "config.json")
    expected = policy.logits(PROBE)
    for found in through_libraries(tmp_path):
        assert np.abs(found - expected).max() < 1e-5 * max(1, np.abs(expected).max())


def test_merging_is_the_formula():
    weight = np.array([[3.0, 0.0], [0.0, 1.0]], np.float32)
    weights = {"0.q.lora_A": np.array([[1.0, 2.0]], np.float32)}
    weights["0.q.lora_B"] = np.array([[0.5], [-1.0]], np.float32)
    lora = Adapter(1, 2.0, 0.0, 1, weights)
    assert merge(weight, lora, "0.q").tolist() == [[4, 2], [-2, -3]]  # + 2 · [[½, 1], [−1, −2]]
    magnitude = {"0.q.lora_magnitude_vector": np.array([10.0, 1.0], np.float32)}
    dora = merge(weight, Adapter(1, 2.0, 0.0, 1, weights | magnitude), "0.q")
    np.testing.assert_allclose(row_norms(dora), [10, 1], rtol=1e-6)
    np.testing.assert_allclose(dora[0] / dora[0, 1], [2, 1], rtol=1e-6)
