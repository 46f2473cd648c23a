"""500 configurations with one key more, one renamed or one value changed: the same, or refused.

What comes of a mutated configuration is the autoencoder of the sound one, or a refusal that names
the key. Free texts such as the model's name may say anything, and are left out.
"""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from fpo_convert.releases import all_releases
from fpo_convert.sae import convert_sae
from fpo_core.arrays import numpy_ops
from fpo_core.errors import SaeError
from fpo_core.sae.sae import load_sae
from tests.convert import layouts
from tests.convert.layouts import D_IN, D_SAE, K

CASES = 500
FREE = {"model_name", "lm_name", "neuronpedia_id"}
NAMES = ["signed", "pre_bias", "rotate_input", "tied_weights", "input_scale", "notes", "author"]
NAMES += ["activation_clamp", "group_norm", "whiten", "hook_shift", "topk_mode", "wandb_link"]
VALUES = [True, False, 2.0, "on", [1], {"a": 1}]
WRONG = {bool: "perhaps", int: -3, float: "NaN", str: "nonsense", list: "nonsense", dict: "a"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A sound checkpoint of every format that has a configuration: source and configuration."""
    root = tmp_path_factory.mktemp("sound")
    found = [(folder, folder / "cfg.json") for _, folder in layouts.folders(root / "folders")]
    one = {release.loader: release for release in all_releases() if release.layer % 2 == 0}
    one |= {
        r.release: r for r in all_releases() if r.loader in ("sae_lens", "dictionary_learning_1")
    }
    for release in one.values():
        layouts.write(root, release)
        source = root / release.repo / release.path
        folder = source if source.is_dir() else source.parent
        names = ("cfg.json", "hyperparams.json", "config.json", "config.yaml", "*_cfg.json")
        configs = [path for name in names for path in folder.glob(name)]
        if configs and release.loader != "temporal":
            found.append((source, configs[0]))
    return [*found, *sparsify(root), bussmann(root)]


def sparsify(root: Path):
    for signed in (False, True):
        folder = root / f"signed-{signed}" / "layers.6"
        w = layouts.arrays(np.random.default_rng(7))
        stored = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"]}
        stored |= {"W_dec": w["W_dec"], "b_dec": w["b_dec"]}
        layouts.save(stored, folder / "sae.safetensors")
        cfg = {"activation": "topk", "expansion_factor": D_SAE // D_IN, "normalize_decoder": True}
        cfg |= {"num_latents": D_SAE, "k": K, "multi_topk": False, "skip_connection": False}
        cfg |= {"transcode": False, "d_in": D_IN, "signed": signed}
        (folder / "cfg.json").write_text(json.dumps(cfg))
        yield folder, folder / "cfg.json"


def bussmann(root: Path):
    folder = root / "bussmann"
    layouts.save_pt(folder / "sae.pt", layouts.arrays(np.random.default_rng(8)))
    cfg = {"sae_type": "topk", "top_k": K, "act_size": D_IN, "dict_size": D_SAE}
    cfg |= {"input_unit_norm": True, "use_encoder_bias": True, "activation": "relu"}
    cfg |= {"tied_weights": False, "hook_point": "blocks.8.hook_resid_pre", "lr": 3e-4}
    (folder / "config.json").write_text(json.dumps(cfg))
    return folder, folder / "config.json"


def outcome(source, out):
    """All that training would read of an autoencoder."""
    # These two leave the factor to the table of releases, which a copy on disk doesn't reach.
    factor = 1.5 if re.search("R1-Distill|mlp-out-saes", str(source)) else None
    sae = load_sae(convert_sae(source, out, norm_factor=factor).out)
    x = np.random.default_rng(0).normal(size=(7, D_IN)).astype(np.float32)
    features = sae.encode(numpy_ops, x).tobytes()
    return features, sae.hook, sae.untrained_tokens, sae.centred, sae.input_transform


def mappings(cfg):
    """The configuration and the mappings within it, to mutate any of them."""
    yield cfg
    for value in cfg.values():
        if isinstance(value, dict):
            yield from mappings(value)


def mutate(cfg, rng):
    """Change one mapping; the names that a refusal may give, or None for no change."""
    where = rng.choice([m for m in mappings(cfg) if m])
    keys = [key for key in where if key not in FREE]
    kind = rng.choice(["more", "renamed", "changed"])
    if kind == "more" or not keys:
        name = rng.choice([name for name in NAMES if name not in where])
        where[name] = rng.choice(VALUES)
        return {name}
    key = rng.choice(keys)
    if kind == "changed":
        wrong = WRONG.get(type(where[key]), "nonsense")
        where[key] = wrong
        return {key}
    scrambled = "".join(rng.sample("abcdefghijklmnopqrstuvwxyz", 7))
    name = rng.choice([f"{key}s", f"x_{key}", key.upper(), key.replace("_", "-") + "_", scrambled])
    where[name] = where.pop(key)
    return {key, name}


def test_a_mutated_configuration_is_the_same_or_refused_by_name(sources, tmp_path):
    rng, refused = random.Random(23), 0
    expected = [outcome(source, tmp_path / f"{n}") for n, (source, _) in enumerate(sources)]
    for case in range(CASES):
        number = case % len(sources)
        source, config = sources[number]
        text = config.read_text()
        cfg = yaml.safe_load(text)
        named = mutate(cfg, rng)
        config.write_text(yaml.safe_dump(cfg) if config.suffix == ".yaml" else json.dumps(cfg))
        refusal = ""
        try:
            found = outcome(source, tmp_path / "mutated")
        except SaeError as error:
            refusal = str(error).lower()
        config.write_text(text)
        refused += bool(refusal)
        if refusal:
            assert any(name in refusal for name in spellings(named)), f"{named}: {refusal}"
        else:
            assert found == expected[number], f"{config} differs silently by {named}: {cfg}"
    assert refused > CASES / 4


def spellings(named):
    """Names as refusals give them: SAELens's early ones by those of version 6."""
    lower = {name.lower() for name in named}
    early = {name.replace("hook_point_", "hook_").removesuffix("_str") for name in lower}
    return lower | early | {name.replace("hook_point", "hook_name") for name in lower}
