"""Command line over YAML over defaults, and what a YAML file may say."""

from pathlib import Path
from typing import Any

import pytest

from fpo_cli.console.options import describe, read_settings
from fpo_core.config import EvalConfig, GenerateConfig, TrainConfig
from fpo_core.config.yaml_file import read_yaml
from fpo_core.errors import ConfigError

NEEDED = {"model": "m", "data": "d", "output": "o", "sae": "s"}


def read(tmp_path: Path, text: str, given: dict[str, Any] | None = None, kind: Any = TrainConfig):
    file = tmp_path / "run.yaml"
    file.write_text(text, encoding="utf-8")
    names = {k: v for k, v in NEEDED.items() if k in kind.names()}
    return read_settings(kind, names | (given or {}), file, {})


def test_the_command_line_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    config, _ = read(tmp_path, "alpha: 0.25\nbeta: 2\nlearning-rate: 5e-7", {"alpha": 1.5})
    assert (config.alpha, config.beta, config.k) == (1.5, 2.0, 50)
    assert config.learning_rate == 5e-7


def test_defaults_of_a_command_stand_under_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("k: 7")
    config, _ = read_settings(TrainConfig, NEEDED, file, {"k": 3, "beta": 9.0})
    assert (config.k, config.beta) == (7, 9.0)


def test_coefficients_of_a_commands_own_objective_do_not_outlive_it(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("objective: tdpo2")
    own = {"alpha": 2.0, "beta": 50.0, "k": 3}
    config, _ = read_settings(TrainConfig, NEEDED, file, own)
    assert (config.coefficient("alpha"), config.coefficient("beta"), config.k) == (0.5, 0.1, 3)
    with pytest.raises(ConfigError, match="alpha is set, but the objective dpo has none"):
        read_settings(TrainConfig, NEEDED | {"alpha": 2.0, "objective": "dpo"}, None, own)


def test_a_length_on_the_command_line_replaces_the_files(tmp_path: Path) -> None:
    config, _ = read(tmp_path, "epochs: 3", {"iters": 10})
    assert (config.epochs, config.iters) == (None, 10)
    with pytest.raises(ConfigError, match="epochs and iters are both set"):
        read(tmp_path, "epochs: 3\niters: 10")


def test_aliases_lists_and_nothing(tmp_path: Path) -> None:
    config, _ = read(tmp_path, "max_length: 99\ntarget_modules: [q_proj, v_proj]\nadapter:")
    assert (config.max_seq_length, config.adapter) == (99, None)
    assert config.target_modules == ("q_proj", "v_proj")
    other, _ = read(tmp_path, "temp: 0.5", {"prompt": "p"}, GenerateConfig)
    assert other.temperature == 0.5


def test_an_unknown_key_is_refused_and_another_commands_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.yaml has an unknown key 'alhpa'.*'alpha'"):
        read(tmp_path, "alhpa: 1")
    _, ignored = read(tmp_path, "learning_rate: 1e-4\nalpha: 1", kind=EvalConfig)
    assert ignored == ["learning_rate"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b", "holds no keys"),
        ("just words", "holds no keys"),
        ("a: [1", "is not YAML"),
        ("a: b: c", "is not YAML"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read(tmp_path, text)


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, "# nothing\n")[0] == TrainConfig.from_mapping(NEEDED)


@pytest.mark.parametrize("name", ["lora.yaml", "full.yaml"])
def test_the_examples_are_legal(name: str) -> None:
    path = Path(__file__).parents[2] / "examples" / name
    config, ignored = read_settings(TrainConfig, NEEDED, path, {})
    assert ignored == []
    assert set(read_yaml(path)) <= set(TrainConfig.names())
    assert config.batch_size * config.grad_accumulation_steps == 32


def test_options_come_in_the_groups_of_the_settings() -> None:
    described = describe(TrainConfig)
    panels = list(dict.fromkeys(option.panel for option in described))
    assert panels[:2] == ["Which model, and where it starts", "Where to compute"]
    assert [option.name for option in described] != TrainConfig.names()
    assert sorted(option.name for option in described) == sorted(TrainConfig.names())
