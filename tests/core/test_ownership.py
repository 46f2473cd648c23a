"""What is read is not written over, nor what somebody else wrote."""

import os

import pytest

from fpo_core.errors import ConfigError
from fpo_core.io.ownership import check_foreign, check_inputs, marked


def refused(targets, folder=None, **inputs):
    with pytest.raises(ConfigError) as caught:
        check_inputs(targets, inputs, folder=folder)
    return str(caught.value)


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_the_folder_of_an_input_is_refused(tmp_path, model):
    assert refused([model], model=model).startswith(f"model is {model}, and {model} would be ")
    assert "choose another output" in refused([model / "best"], model, model=str(model))
    assert refused([tmp_path], model=model)
    assert refused([model / "config.json"], sae=("elsewhere", str(model / "config.json")))


def test_other_names_of_the_same_place_are_found_out(tmp_path, model, monkeypatch):
    link = tmp_path / "link"
    link.symlink_to(model)
    assert refused([link], model=model)
    assert refused([model], model=link)
    assert refused([model / ".." / "model"], model=model)
    monkeypatch.chdir(model)
    assert refused([model], model=".")
    os.link(model / "config.json", tmp_path / "hard")
    assert refused([tmp_path / "hard"], data=model / "config.json")


def test_what_an_input_lies_in_is_refused(tmp_path, model):
    assert refused([tmp_path / "model"], adapter=model / "config.json")


def test_neighbours_hub_names_and_folders_further_down_pass(tmp_path, model):
    check_inputs([tmp_path / "other", model / "runs" / "log"], {"model": model})
    check_inputs([tmp_path / "out"], {"model": "org/name", "adapter": None, "sae": "gone.sae"})


def test_only_marked_or_empty_folders_are_ours(tmp_path):
    best = tmp_path / "best"
    check_foreign([best], marked("fpo_best.json"))
    best.mkdir()
    check_foreign([best], marked("fpo_best.json"))
    (best / "thesis.txt").write_text("x")
    with pytest.raises(ConfigError, match="was not written by this program"):
        check_foreign([best], marked("fpo_best.json"))
    (best / "fpo_best.json").write_text("{}")
    check_foreign([best], marked("fpo_best.json"))


def test_links_are_refused_even_to_marked_folders_and_to_nowhere(tmp_path):
    real = tmp_path / "real"
    real.mkdir()
    (real / "mark").write_text("")
    for name, target in (("one", real), ("two", tmp_path / "nowhere")):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(ConfigError, match="is a link, which is not followed"):
            check_foreign([tmp_path / name], marked("mark"))
