"""Greedy answers on the terminal: beside the verdict of `train`, in the result of `eval`."""

from pathlib import Path

from .conftest import Fpo

FEW = ["--backend", "torch", "--val-pairs", 2, "--greedy-answers", 1, "--answer-tokens", 4]
STEPS = ["--iters", 1, "--batch-size", 2, "--no-preflight"]


def test_train_and_eval_show_them(fpo: Fpo, world: list[object], tmp_path: Path) -> None:
    run, asked = tmp_path / "run", tmp_path / "asked.jsonl"
    asked.write_text('{"prompt": "Is it \\u001b[31mred?", "expected": "nowhere"}\n')
    ran = fpo("train", *world, *FEW, *STEPS, "--prompts", asked, "--output", run)
    assert ran.code == 0, ran.err
    assert ran.out.startswith("Learned?"), "the verdict alone is the result"
    assert ran.err.count("prompt  ") == 2
    assert "prompt  Is it \\x1b[31mred?\nbefore  ✗ " in ran.err
    ran = fpo("eval", *world, *FEW, "--prompts", asked, "--adapter", run, "--samples", 0)
    assert ran.out.count("prompt  ") == 2
    assert "\nafter   ✗ " in ran.out
    assert "repetition of greedy answers" in ran.out


def test_a_file_that_is_not_there_is_refused_before_anything_is_loaded(
    fpo: Fpo, world: list[object], tmp_path: Path
) -> None:
    ran = fpo("train", *world, *FEW, "--prompts", tmp_path / "absent", "--output", tmp_path / "r")
    assert ran.code == 2
    assert ran.err == f"fpo: there is no prompt file {tmp_path / 'absent'}: check the path\n"
