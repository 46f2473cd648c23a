"""What users of TRL, mlx-lm and other command lines do without thinking."""

from pathlib import Path

import pytest
import yaml

import fpo as fpo_api
from fpo.world import assets
from fpo_core import __version__
from fpo_core.config import TrainConfig
from fpo_core.config.runs import EvalConfig, FuseConfig, GenerateConfig
from fpo_core.config.spellings import SPELLINGS
from fpo_core.config.yaml_file import read_yaml

from .conftest import Fpo
from .test_errors import refused

KINDS = (TrainConfig, EvalConfig, FuseConfig, GenerateConfig)
SETTINGS = {name for kind in KINDS for name in kind.names()}


def test_the_version_is_told(fpo: Fpo) -> None:
    ran = fpo("--version")
    assert (ran.code, ran.out) == (0, f"fpo-mlx {__version__}\n")


def test_spellings_of_others_are_ours_and_hide_none_of_ours() -> None:
    assert set(SPELLINGS.values()) <= SETTINGS
    assert not SPELLINGS.keys() & SETTINGS


@pytest.mark.parametrize("dashes", [True, False])
def test_spellings_of_trl_are_taken(
    dashes: bool, fpo: Fpo, world: list[object], tmp_path: Path
) -> None:
    spelt = {
        "lr": "lr",
        "batch": "per_device_train_batch_size",
        "steps": "max_steps",
        "out": "output_dir",
        "rank": "lora_r",
    }
    names = {k: "--" + (v.replace("_", "-") if dashes else v) for k, v in spelt.items()}
    options = [names["lr"], 0.01, names["batch"], 2, names["steps"], 1, names["rank"], 4]
    quick = ["--backend", "torch", "--val-pairs", 2, "--no-preflight"]
    ran = fpo("train", *world, *options, *quick, names["out"], tmp_path / "run", "--json")
    assert ran.code == 0, ran.err
    written = yaml.safe_load((tmp_path / "run/fpo_config.json").read_text())
    assert written["learning_rate"] == 0.01
    assert (written["batch_size"], written["iters"], written["rank"]) == (2, 1, 4)


def test_spellings_are_taken_from_files_and_calls_too(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("lr: 0.5\nlora-r: 3\nmax_length: 64\n")
    assert read_yaml(file) == {"learning_rate": 0.5, "rank": 3, "max_seq_length": 64}
    file.write_text("lr: 0.5\nlearning_rate: 0.4\n")
    with pytest.raises(fpo_api.ConfigError, match="sets learning_rate twice"):
        read_yaml(file)
    file.write_text("iters: 1\niters: 2\n")
    with pytest.raises(fpo_api.ConfigError, match="'iters' occurs twice"):
        read_yaml(file)
    spelt = {"model_name_or_path": assets().model, "max_new_tokens": 1}
    result = fpo_api.generate(**spelt, prompt="Hello", backend="torch")
    assert result.completions[0].tokens == 1


def test_a_file_takes_dates_as_the_help_writes_them_and_its_own_neighbours(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    (tmp_path / "values").mkdir()
    file.write_text("template_date: 2024-07-26\nvalue: values\n")
    assert read_yaml(file) == {"template_date": "2024-07-26", "value": str(tmp_path / "values")}


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--lora-alpha", ("scale, which is lora_alpha / rank",)),
        ("--bf16", ("dtype to bfloat16",)),
        ("--adapter-path", ("set adapter", "or output")),
        ("--learning-rat", ("--learning-rate",)),
    ],
)
def test_what_means_something_else_is_explained(
    option: str, words: tuple[str, ...], fpo: Fpo, tmp_path: Path
) -> None:
    refused(fpo("train", option, "1"), *words)
    if option != "--learning-rat":
        file = tmp_path / "c.yaml"
        file.write_text(f"{option[2:]}: 1\n")
        refused(fpo("train", "-c", file, "--output", tmp_path / "run"), *words)


def test_relative_paths_of_a_file_are_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project/data").mkdir(parents=True)
    (tmp_path / "project/data/pairs.jsonl").touch()
    file = tmp_path / "project/run.yaml"
    file.write_text(
        "data: data/pairs.jsonl\nmodel: user/model\nadapter: ../start\noutput: runs/a\n"
        "sae: [/absolute.safetensors, data/pairs.jsonl]\nobjective: dpo\n"
    )
    monkeypatch.chdir(tmp_path)
    read = read_yaml(Path("project/run.yaml"))
    assert read == {
        "data": "project/data/pairs.jsonl",
        "model": "user/model",
        "adapter": "project/../start",
        "output": "project/runs/a",
        "sae": ["/absolute.safetensors", "project/data/pairs.jsonl"],
        "objective": "dpo",
    }


@pytest.mark.parametrize("option", ["--model", "--data", "--text"])
def test_the_path_that_was_tried_is_in_the_message(
    option: str, fpo: Fpo, world: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [*world, "--output", "run", option, "./typo.jsonl", "--backend", "torch"]
    refused(fpo("train", *options), str(tmp_path / "typo.jsonl"))
