"""`fpo value train`, and samples under its result: `generate`, `sample`, `eval`."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import fpo as api
from fpo.world import assets
from fpo_core.errors import JudgeError

from .conftest import Fpo

MODEL = ["--model", assets().model, "--backend", "torch", "--device", "cpu"]
ASKED = [f"Tell me about the {colour} lamp." for colour in ("red", "old", "small", "new")]
FEW = ["--samples", 4, "--rank", 2, "--epochs", 1, "--valid-fraction", 0.25, "--lr", 0.01]
PROMPT = ["--prompt", ASKED[0], "--max-tokens", 24]


@pytest.fixture(scope="module")
def prompts(shared: Path) -> Path:
    path = shared / "value-prompts.txt"
    path.write_text("\n".join(ASKED))
    return path


@pytest.fixture
def value(fpo: Fpo, shared: Path, prompts: Path) -> Path:
    """A value function, trained once."""
    folder = shared / "value"
    if not folder.exists():
        ran = fpo("value", "train", *trained(prompts, folder), "--json")
        assert ran.code == 0, ran.err
        check_result(ran.json, folder)
    return folder


def trained(prompts: Path, folder: Path) -> list[Any]:
    return [*MODEL, "--prompts", prompts, "--judge", "oracle", "--output", folder, *FEW]


def check_result(result: dict[str, Any], folder: Path) -> None:
    assert (result["prompts"], result["samples"], result["generated"]) == (4, 16, 16)
    assert result["unended"] == result["no_verdict"] == 0
    assert result["held_out"] == 4
    assert result["explained"].keys() >= {"prompt", "end"}
    assert result["steps"] == 1
    facts = json.loads((folder / "fpo_value.json").read_text())
    assert (facts["judge"], facts["samples"], facts["lambda"]) == ("oracle", 12, 0.95)


def test_samples_that_are_there_are_not_drawn_again(
    fpo: Fpo, value: Path, prompts: Path, tmp_path: Path
) -> None:
    """Those of a batch that was cut are; other settings are refused; the result is the same."""
    again = tmp_path / "again"
    again.mkdir()
    lines = (value / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (again / "samples.jsonl").write_bytes(b"".join(lines[:9]))
    ran = fpo("value", "train", *trained(prompts, again), "--batch-size", 2, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["generated"] == 8
    for name in ("value_head.safetensors", "adapter_model.safetensors"):
        assert (again / name).read_bytes() == (value / name).read_bytes()
    other = fpo("value", "train", *trained(prompts, again), "--temp", 0.5)
    assert other.code == 2
    assert "not of these prompts, model and settings" in other.err


def test_values_weigh_tokens_and_none_weighs_nothing(fpo: Fpo, value: Path) -> None:
    """`--value` twice, or with a comma, is two values, whose weights add up."""

    def completions(*options: object) -> list[str]:
        ran = fpo("generate", *MODEL, *PROMPT, "--samples", 3, *options, "--json")
        assert ran.code == 0, ran.err
        return [c["text"] for c in ran.json["completions"]]

    base = completions()
    assert completions("--value", value, "--value-beta", 0) == base
    strong = completions("--value", value, "--value-beta", 400, "--value-top-k", 5)
    assert strong != base
    twice = ["--value", value, "--value", value, "--value-beta", 150, "--value-beta", 250]
    assert completions(*twice, "--value-top-k", 5) == strong
    comma = ["--value", f"{value},{value}", "--value-beta", "150,250", "--value-top-k", 5]
    assert completions(*comma) == strong


def test_eval_weighs_samples_alone(fpo: Fpo, value: Path, world: list[object]) -> None:
    few = ["--val-pairs", 2, "--samples", 4, "--greedy-answers", 0, "--judge", "oracle"]
    weighed = ["--value", value, "--value-beta", 100]
    ran = fpo("eval", *world, *few, *weighed, "--backend", "torch", "--json")
    assert ran.code == 0, ran.err
    before, after = ran.json["before"], ran.json["after"]
    assert after["value_kl"] > 0
    assert "value_kl" not in before
    assert after["completions"] != before["completions"]
    assert after["raw_accuracy"] == before["raw_accuracy"]
    assert ran.json["judged"]["pairs"] == 4


def test_pairs_of_samples_under_a_value(
    fpo: Fpo, value: Path, prompts: Path, tmp_path: Path
) -> None:
    """Samples under other values are not gone on with."""
    asked = [*MODEL, "--prompts", prompts, "--judge", "oracle", "--output", tmp_path / "own.jsonl"]
    weighed = ["--max-tokens", 16, "--samples", 2, "--value", value]
    assert fpo("sample", *asked, *weighed).code == 0
    ran = fpo("sample", *asked, *weighed, "--value-beta", 2)
    assert ran.code == 2
    assert "not of these prompts, model and settings" in ran.err


def damaged(value: Path, tmp_path: Path, name: str) -> Path:
    folder = tmp_path / "damaged"
    shutil.copytree(value, folder)
    data = bytearray((folder / name).read_bytes())
    data[-9] ^= 1
    (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize(
    "name", ["value_head.safetensors", "adapter_model.safetensors", "fpo_value.json"]
)
def test_a_value_that_is_not_what_was_written_is_refused(
    fpo: Fpo, value: Path, tmp_path: Path, name: str
) -> None:
    folder = damaged(value, tmp_path, name)
    ran = fpo("generate", *MODEL, *PROMPT, "--value", folder)
    assert ran.code == 2
    assert name in ran.err or "fpo_value.json" in ran.err
    assert "sound copy" in ran.err


@pytest.mark.parametrize(
    ("command", "options", "words"),
    [
        ("generate", ["--adapter", "VALUE"], "is a value function, which writes no text"),
        ("generate", ["--value", "MODEL"], "holds no fpo_value.json"),
        ("generate", ["--value-beta", "3"], "value_beta is set while value is not"),
        ("generate", ["--value", "VALUE", "--value-beta", "1,2"], "has 2 numbers and value 1"),
        ("generate", ["--value", "VALUE", "--value-beta", "much"], "has 'much', expected numbers"),
        ("value train", ["--fine-tune-type", "full"], "shares the model's weights"),
        ("value train", ["--optimizer", "lozo"], "takes no gradients"),
        ("value train", ["--judge", "oracle", "--max-tokens", "2"], "rewards that do not differ"),
        ("value train", [], "judge is not set"),
    ],
)
def test_mistakes(
    fpo: Fpo,
    value: Path,
    prompts: Path,
    tmp_path: Path,
    command: str,
    options: list[str],
    words: str,
) -> None:
    places = {"VALUE": str(value), "MODEL": str(assets().model)}
    asked = ["--prompts", prompts, "--output", tmp_path / "v"] if " " in command else PROMPT
    ran = fpo(*command.split(), *MODEL, *asked, *(places.get(o, o) for o in options))
    assert ran.code == 2, ran.out
    assert words in ran.err


def test_rewards_that_tell_nothing_or_are_no_numbers(prompts: Path, tmp_path: Path) -> None:
    """Where held-out rewards do not differ there is no R², and JSON has no word for NaN."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    settings: dict[str, Any] = {"model": assets().model, "backend": "torch", "prompts": prompts}
    settings |= {"samples": 2, "rank": 2, "epochs": 1, "valid_fraction": 0.25}
    by_prompt = lambda prompt, completion: float(len(prompt))  # noqa: E731
    api.train_value(**settings, output=tmp_path / "value", by=by_prompt)
    text = (tmp_path / "value" / "fpo_value.json").read_text()
    assert json.loads(text, parse_constant=refuse)["explained"]["end"] is None
    with pytest.raises(JudgeError, match="a reward that is not finite"):
        api.train_value(**settings, output=tmp_path / "none", by=lambda *_: float("inf"))
