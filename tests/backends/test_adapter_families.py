"""An adapter gives the same logits in PEFT, mlx-lm and here, whoever made it (five families)."""

import importlib
import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from fpo_convert.adapter import convert_adapter
from fpo_core.adapters.lora import Adapter
from fpo_core.adapters.reader import load_adapter
from fpo_core.adapters.writer import MLX_FILE, PEFT_FILE, save_adapter
from fpo_core.config import AdapterConfig
from fpo_core.errors import ModelError
from fpo_core.models.folder import ModelFolder
from tests.backends.families import FAMILIES, write_family
from tests.backends.support import shaken
from tests.helpers import BACKENDS

TOKENS = np.random.default_rng(0).integers(3, 64, (2, 12))
NARROW = {"llama": ["q_proj", "up_proj"], "gpt2": ["c_attn", "mlp.c_proj"]}


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory):
    """The folder of a family's tiny model, written once."""
    folders = {}

    def find(family):
        if family not in folders:
            folders[family] = write_family(family, tmp_path_factory.mktemp(family))
        return folders[family]

    return find


def through_peft(base, folder):
    """Logits by transformers and, with a folder, PEFT."""
    torch, peft, transformers = map(importlib.import_module, ("torch", "peft", "transformers"))
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if folder is not None:
        model = peft.PeftModel.from_pretrained(model, folder)
    with torch.no_grad():
        return model.eval()(torch.from_numpy(TOKENS)).logits.numpy()


def through_mlx_lm(base, folder):
    """Logits by mlx-lm, which applies the adapter as its own commands do."""
    mx = importlib.import_module("mlx.core")
    utils, tuner = map(importlib.import_module, ("mlx_lm.utils", "mlx_lm.tuner.utils"))
    model, _ = utils.load_model(base)
    if folder is not None:
        model = tuner.load_adapters(model, str(folder))
    model.eval()
    return np.array(model(mx.array(TOKENS)))


def assert_close(found, expected, tolerance=1e-5):
    assert np.abs(found - expected).max() <= tolerance * max(1, np.abs(expected).max())


def through_us(make_policy, backend, base, folder):
    """Logits by our policy, shaped and loaded as the command line does."""
    adapter = load_adapter(folder, ModelFolder(base, "").layers)
    policy = make_policy(
        backend,
        base,
        sae=None,
        fine_tune_type=adapter.fine_tune_type,
        num_layers=adapter.num_layers,
        rank=adapter.rank,
        scale=adapter.scale,
        target_modules=tuple(adapter.modules()),
    )
    policy.load_trained(policy.trained() | adapter.weights)
    return policy.logits(TOKENS)


def assert_same_everywhere(make_policy, base, folder, expected):
    plain = through_peft(base, None)
    assert np.abs(expected - plain).max() > 0.05, "the adapter does nothing: nothing is compared"
    assert_close(through_peft(base, folder), expected)
    assert_close(through_mlx_lm(base, folder), expected)
    for backend in BACKENDS:
        assert_close(through_us(make_policy, backend, base, folder), expected)


def paths_of_blocks(policies):
    """Where torch's policy and MLX's have their blocks, without what PEFT puts around."""
    models = policies[0].base, policies[1].model
    modules = (importlib.import_module(f"fpo_{backend}.models") for backend in BACKENDS)
    return [module.find_blocks(model)[0] for module, model in zip(modules, models, strict=True)]


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_our_adapter_opens_in_both_libraries(make_policy, family_folder, tmp_path, family, kind):
    base = family_folder(family)
    config = AdapterConfig(fine_tune_type=kind, num_layers=2, rank=4, scale=3.0)
    settings = {name: getattr(config, name) for name in ("fine_tune_type", "num_layers", "rank")}
    policies = [make_policy(b, base, sae=None, scale=3.0, **settings) for b in BACKENDS]
    layout = ModelFolder(base, "").layout
    assert paths_of_blocks(policies) == [layout.peft, layout.mlx]
    start = policies[0].trained()
    assert all((start[n] == w).all() for n, w in policies[1].trained().items())
    weights = shaken(start, 0.1)
    policies[0].load_trained(weights)
    save_adapter(tmp_path, Adapter(4, 3.0, 0.0, 2, weights), base_model=str(base), layout=layout)
    expected = policies[0].logits(TOKENS)
    assert_same_everywhere(make_policy, base, tmp_path, expected)


def peft_adapter(base, folder, **settings):
    """An adapter that PEFT itself made and wrote; returns the logits with it."""
    torch, peft, transformers = map(importlib.import_module, ("torch", "peft", "transformers"))
    torch.manual_seed(1)
    base = transformers.AutoModelForCausalLM.from_pretrained(base)
    config = peft.LoraConfig(task_type="CAUSAL_LM", **{"r": 4, "lora_alpha": 8} | settings)
    model = peft.get_peft_model(base, config)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data += 0.1 * torch.randn_like(weight)
    model.save_pretrained(folder)
    with torch.no_grad():
        return model.eval()(torch.from_numpy(TOKENS)).logits.numpy()


MADE_BY_PEFT = {
    "lora": {},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "some layers": {"layers_to_transform": [0, 2]},
    "a layer not the last": {"layers_to_transform": [1], "use_dora": True},
    "irregular": {"target_modules": r".*layers\.0\.mlp\.down_proj|.*layers\.2\..*\.(q|v)_proj"},
    "patterns": {
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {"layers.1.self_attn.q_proj": 5, "up_proj": 3},
    },
    "patterns, rslora and dora": {
        "rank_pattern": {r"layers\.[01]\.self_attn\.q_proj": 3},
        "alpha_pattern": {"q_proj": 5},
        "use_rslora": True,
        "use_dora": True,
    },
}


@pytest.mark.parametrize("made", MADE_BY_PEFT)
@pytest.mark.parametrize("family", ["llama"])
def test_an_adapter_of_peft_goes_to_mlx_lm_and_back(
    make_policy, family_folder, tmp_path, family, made
):
    base = family_folder(family)
    settings = {"target_modules": NARROW[family]} | MADE_BY_PEFT[made]
    expected = peft_adapter(base, tmp_path / "peft", **settings)
    for i, (source, to) in enumerate([("peft", "both"), ("peft", "mlx"), ("mlx", "peft")]):
        model = str(base) if i == 0 else None
        convert_adapter(tmp_path / source, tmp_path / f"{to}{i}", to=to, model=model)
        (tmp_path / f"{to}{i}").rename(tmp_path / (to if to != "peft" else "back"))
    assert_same_everywhere(make_policy, base, tmp_path / "both", expected)
    assert_close(through_mlx_lm(base, tmp_path / "mlx"), expected)
    assert_close(through_peft(base, tmp_path / "back"), expected)
    assert sorted(p.name for p in (tmp_path / "mlx").iterdir()) == [
        "adapter_config.json",
        MLX_FILE,
    ]
    if "pattern" not in made:  # which are folded into the weights
        assert_bitwise_equal(tmp_path / "back", tmp_path / "peft")


def assert_bitwise_equal(found, expected):
    found, expected = load_file(found / PEFT_FILE), load_file(expected / PEFT_FILE)
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert found[name].dtype == weight.dtype
        assert (found[name] == weight).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_to_mlx_to_peft_is_exact_in_every_family(family_folder, tmp_path, family):
    base = family_folder(family)
    expected = peft_adapter(base, tmp_path / "peft", target_modules="all-linear")
    convert_adapter(tmp_path / "peft", tmp_path / "mlx", to="mlx")
    convert_adapter(tmp_path / "mlx", tmp_path / "back", to="peft")
    assert_bitwise_equal(tmp_path / "back", tmp_path / "peft")
    assert_close(through_mlx_lm(base, tmp_path / "mlx"), expected)
    assert_close(through_peft(base, tmp_path / "back"), expected)


def mlx_adapter(base, folder, kind, **settings):
    """An adapter as mlx-lm's trainer makes and writes it; returns the logits with it."""
    mx = importlib.import_module("mlx.core")
    utils, tuner = map(importlib.import_module, ("mlx_lm.utils", "mlx_lm.tuner.utils"))
    tree_flatten = importlib.import_module("mlx.utils").tree_flatten
    mx.random.seed(1)
    model, _ = utils.load_model(base)
    model.freeze()
    parameters = {"rank": 4, "scale": 3.0, "dropout": 0.0} | settings
    tuner.linear_to_lora_layers(model, 2, parameters, use_dora=kind == "dora")
    moved = [(n, w + 0.1 * mx.random.normal(w.shape)) for n, w in trainable(model)]
    model.load_weights(moved, strict=False)
    mx.eval(model.parameters())
    folder.mkdir()
    mx.save_safetensors(str(folder / MLX_FILE), dict(tree_flatten(model.trainable_parameters())))
    config = {
        "model": str(base),
        "fine_tune_type": kind,
        "num_layers": 2,
        "lora_parameters": parameters,
        "learning_rate": 1e-5,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    model.eval()
    return np.array(model(mx.array(TOKENS)))


def trainable(model):
    return importlib.import_module("mlx.utils").tree_flatten(model.trainable_parameters())


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_adapter_of_mlx_lm_goes_to_peft(make_policy, family_folder, tmp_path, family, kind):
    base = family_folder(family)
    keys = {"keys": ["self_attn.q_proj", "mlp.down_proj"]} if family == "llama" else {}
    expected = mlx_adapter(base, tmp_path / "made", kind, **keys)
    convert_adapter(tmp_path / "made", tmp_path / "both")
    assert_same_everywhere(make_policy, base, tmp_path / "both", expected)


def test_adapters_on_embeddings_or_of_other_kinds_are_refused(family_folder, tmp_path):
    base = family_folder("llama")
    peft_adapter(base, tmp_path / "head", target_modules=["q_proj", "lm_head"])
    with pytest.raises(ModelError, match=r"'base_model\.model\.lm_head\..*', which is"):
        convert_adapter(tmp_path / "head", tmp_path / "out")
    peft_adapter(base, tmp_path / "embed", target_modules=["q_proj", "embed_tokens"])
    with pytest.raises(ModelError, match=r"embed_tokens"):
        convert_adapter(tmp_path / "embed", tmp_path / "out")
    settings = {"target_modules": ["q_proj"], "bias": "lora_only"}
    peft_adapter(base, tmp_path / "bias", **settings)
    with pytest.raises(ModelError, match="sets bias to 'lora_only'"):
        convert_adapter(tmp_path / "bias", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_the_adapter_was_not_made_for_is_refused(family_folder, tmp_path):
    base = family_folder("llama")
    peft_adapter(base, tmp_path / "made", target_modules=["q_proj"])
    with pytest.raises(ModelError, match=r"adapts model\.layers, but the blocks of .* transformer"):
        convert_adapter(tmp_path / "made", tmp_path / "out", model=str(family_folder("gpt2")))
    convert_adapter(tmp_path / "made", tmp_path / "mlx", to="mlx")
    config = json.loads((tmp_path / "mlx" / "adapter_config.json").read_text())
    del config["fpo_integrity"]  # the change is on purpose
    # Keys that say model.h alone could be GPT-2's or GPT-NeoX's
    mx = importlib.import_module("mlx.core")
    tensors = {
        k.replace("layers", "h"): w for k, w in mx.load(str(tmp_path / "mlx" / MLX_FILE)).items()
    }
    mx.save_safetensors(str(tmp_path / "mlx" / MLX_FILE), tensors)
    (tmp_path / "mlx" / "adapter_config.json").write_text(json.dumps(config | {"model": ""}))
    with pytest.raises(ModelError, match="give its base as model"):
        convert_adapter(tmp_path / "mlx", tmp_path / "out")


def test_the_text_part_of_a_multimodal_model_has_a_layout(make_policy, tmp_path):
    torch, transformers = map(importlib.import_module, ("torch", "transformers"))
    sizes, settings = FAMILIES["gemma2"][1], {"vision_config": {"num_hidden_layers": 1}}
    settings["vision_config"] |= {"hidden_size": 16, "intermediate_size": 16, "image_size": 28}
    settings["vision_config"] |= {"num_attention_heads": 2, "patch_size": 14}
    ids = {"image_token_index": 63, "boi_token_index": 62, "eoi_token_index": 61}
    text = sizes | {"num_hidden_layers": 6}
    torch.manual_seed(0)
    config = transformers.Gemma3Config(text_config=text, mm_tokens_per_image=4, **settings, **ids)
    transformers.Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path)
    # mlx-lm reads the size of the vocabulary at the top level alone
    config = json.loads((tmp_path / "config.json").read_text()) | {"vocab_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    layout = ModelFolder(tmp_path, "").layout
    paths = paths_of_blocks([make_policy(b, tmp_path, sae=None, rank=2) for b in BACKENDS])
    assert paths == [layout.peft, layout.mlx]
    stored = load_file(tmp_path / "model.safetensors")
    assert any(f"{path}.5.mlp.up_proj.weight" in stored for path in layout.stored)
