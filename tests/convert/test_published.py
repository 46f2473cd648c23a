"""Published autoencoders by model: what is found by name or folder, and what is recommended."""

import json
from pathlib import Path

import pytest

from fpo_convert import releases
from fpo_convert.published import MODELS, list_saes
from fpo_core.errors import SaeError
from fpo_core.models.lineage import family_key


def test_all_that_can_be_read_is_listed_once_for_the_model_it_was_trained_on():
    listed = [sae for model in releases.models() for sae in list_saes(model).saes if sae.exact]
    sources = {sae.source for sae in listed}
    readable = {r.address for r in releases.all_releases() if r.loader != "temporal"}
    assert sources == readable
    assert len(listed) == len(sources) == 13425


@pytest.mark.parametrize("model", ["google/gemma-2-2b", "google/gemma-3-270m-it", "gpt2"])
def test_the_fittest_comes_first(model):
    saes = list_saes(model).saes
    assert [sae.recommended for sae in saes].count(True) == 1
    assert saes[0].recommended
    assert saes[0].site == "resid_post"
    assert saes[0].layer == max(sae.layer for sae in saes if sae.site == "resid_post")
    sites = [sae.site for sae in saes if sae.exact]
    assert sites.index("mlp_out") > max(n for n, site in enumerate(sites) if "resid" in site)


@pytest.mark.parametrize(
    ("model", "trained_on", "exact", "source"),
    [
        ("google/gemma-2-2b", "google/gemma-2-2b", True, None),
        ("mlx-community/gemma-2-2b-4bit", "google/gemma-2-2b", True, None),
        ("/models/Gemma-2-2B-bf16", "google/gemma-2-2b", True, None),
        ("google/gemma-2-2b-it", "google/gemma-2-2b", False, None),
        (
            "Qwen/Qwen3-1.7B",
            "Qwen/Qwen3-1.7B-Base",
            False,
            "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_100:layer27.sae.pt",
        ),
        (
            "google/gemma-3-270m-it",
            "google/gemma-3-270m-it",
            True,
            "google/gemma-scope-2-270m-it:resid_post_all/layer_17_width_16k_l0_big",
        ),
        (
            "mistralai/Mistral-7B-v0.1",
            "mistralai/Mistral-7B-v0.1",
            True,
            "JoshEngels/Mistral-7B-Residual-Stream-SAEs:mistral_7b_layer_24",
        ),
    ],
)
def test_copies_and_tuned_models_are_recognised(model, trained_on, exact, source):
    gemma = "google/gemma-scope-2b-pt-res:layer_25/width_16k/average_l0_116"
    listing = list_saes(model)
    assert (listing.trained_on, listing.exact) == (trained_on, exact)
    assert listing.saes[0].source == (source or gemma)


def test_sizes_and_the_models_of_each():
    saes = {sae.source: sae for sae in list_saes("google/gemma-2-9b-it").saes}
    own = saes["google/gemma-scope-9b-it-res:layer_31/width_16k/average_l0_76"]
    base = saes["google/gemma-scope-9b-pt-att:layer_5/width_16k/average_l0_25"]
    assert (own.exact, own.trained_on) == (True, "google/gemma-2-9b-it")
    assert (base.exact, base.trained_on) == (False, "google/gemma-2-9b")
    assert own.encoder_bytes == 4 * 16384 * (3584 + 2)
    assert base.encoder_bytes == 4 * 16384 * (4096 + 2)


def test_the_constraint_must_see_what_is_trained():
    """Of Gemma-2-9B-it itself only layers 9, 20 and 31 are published; its base has all 42."""
    assert list_saes("google/gemma-2-9b-it", 12).saes[0].layer == 31
    last = list_saes("google/gemma-2-9b-it", 10)
    assert (last.saes[0].layer, last.exact, last.saes[0].recommended) == (41, False, True)
    assert not any(sae.recommended for sae in list_saes("mistralai/Mistral-7B-v0.1", 4).saes)


def test_a_folder_by_its_shape_or_by_what_its_card_says(tmp_path: Path):
    folder = tmp_path / "mine"
    folder.mkdir()
    config = {"model_type": "qwen3", "num_hidden_layers": 28, "hidden_size": 2048}
    (folder / "config.json").write_text(json.dumps(config))
    listing = list_saes(str(folder))
    assert (listing.trained_on, listing.exact) == ("Qwen/Qwen3-1.7B-Base", False)
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 1032}))
    with pytest.raises(SaeError, match="no published autoencoder for"):
        list_saes(str(folder))
    (folder / "README.md").write_text("---\nbase_model:\n- google/gemma-2-2b\n---\n")
    assert list_saes(str(folder)).trained_on == "google/gemma-2-2b"


def test_every_model_of_the_table_has_a_size():
    import yaml

    sizes = {family_key(name) for name in yaml.safe_load(MODELS.read_text())}
    assert {family_key(name) for name in releases.models()} == sizes
