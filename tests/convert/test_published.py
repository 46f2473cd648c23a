"""The table of published autoencoders: what is found for a model, and what is advised."""

import json
import re
from pathlib import Path

import pytest
import yaml

from fpo_convert.published import RESIDUAL, TABLE, list_saes
from fpo_core.errors import SaeError

ENTRIES = yaml.safe_load(TABLE.read_text())


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["model"])
def test_every_entry_expands_to_sources_of_the_hub(entry):
    found = list_saes(entry["model"])
    assert found.exact
    assert found.trained_on == entry["model"]
    assert len({sae.source for sae in found.saes}) == len(found.saes)
    for sae in found.saes:
        assert "{" not in sae.source
        assert re.fullmatch(r"[\w.-]+/[\w.-]+:[\w./:-]+", sae.source)
        assert 0 <= sae.layer < entry["shape"][1]
        assert sae.encoder_bytes >= 4 * sae.width * entry["shape"][2]
    assert [sae.recommended for sae in found.saes].count(True) == 1
    best = found.saes[0]
    assert best.recommended
    residual = [sae for sae in found.saes if sae.site in RESIDUAL]
    assert best.layer == max(sae.layer for sae in residual)


@pytest.mark.parametrize(
    "name", ["google/gemma-2-2b", "mlx-community/gemma-2-2b-4bit", "/models/Gemma-2-2B-bf16"]
)
def test_copies_of_a_model_are_recognised(name):
    found = list_saes(name)
    assert (found.trained_on, found.exact) == ("google/gemma-2-2b", True)
    assert found.saes[0].source == "google/gemma-scope-2b-pt-res:layer_25/width_16k/average_l0_116"
    assert found.saes[0].encoder_bytes == 4 * 16384 * (2304 + 2)


def test_the_constraint_must_see_what_is_trained():
    """Of Gemma-2-9B-it only layers 9, 20 and 31 are published; the last 10 of 42 start at 32."""
    assert list_saes("gemma-2-9b-it", 12).saes[0].layer == 31
    assert list_saes("gemma-2-9b-it", 11).saes[0].recommended
    assert not any(sae.recommended for sae in list_saes("gemma-2-9b-it", 10).saes)


def test_a_folder_of_the_same_shape_is_recognised(tmp_path: Path):
    folder = tmp_path / "mine"
    folder.mkdir()
    config = {"model_type": "qwen3", "num_hidden_layers": 28, "hidden_size": 2048}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"")
    found = list_saes(str(folder))
    assert (found.trained_on, found.exact) == ("Qwen/Qwen3-1.7B-Base", False)
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 1024}))
    with pytest.raises(SaeError, match="no published autoencoder for"):
        list_saes(str(folder))
