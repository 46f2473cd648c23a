"""What a run shows while it goes on."""

from pathlib import Path

import pytest

from fpo.results import Table
from fpo_cli.console import progress
from fpo_cli.console.output import Output

from .conftest import Fpo

RUN = ["--backend", "torch", "--batch-size", 4, "--val-pairs", 4, "--no-preflight"]


@pytest.mark.parametrize("alpha", [1e-6, 5.0])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_weak_constraint_is_told_by_its_gradient(
    steps: int, alpha: float, fpo: Fpo, world: list[object], tmp_path: Path
) -> None:
    """Measured at the end, where the policy has moved, be it by one step."""
    options = [*RUN, "--alpha", alpha, "--iters", steps, "--warmup", 0, "--learning-rate", 0.01]
    ran = fpo("train", *world, *options, "--output", tmp_path / "run")
    assert ran.code == 0, ran.err
    assert f"step {steps}: the constraint's gradient is " in ran.err
    assert ("the constraint hardly took part" in ran.err) == (alpha < 1)


def test_both_accuracies_are_shown_each_under_its_name(
    fpo: Fpo, world: list[object], tmp_path: Path
) -> None:
    """Every pair at the reference is a tie of rewards, whatever the raw accuracy is."""
    ran = fpo("train", *world, *RUN, "--iters", 1, "--output", tmp_path / "run")
    line = next(line for line in ran.err.splitlines() if line.startswith("training: step 1/1"))
    assert ", raw acc " in line
    assert ", reward acc " in line


def test_each_wait_is_told_with_how_much_of_it_is_done(
    fpo: Fpo, world: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where lines may come at once: the trial of batches, validation, an autoencoder's check."""
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
    few = ["--backend", "torch", "--iters", 2, "--batch-size", 2, "--tokens-per-batch", 256]
    ran = fpo("train", *world, *few, "--valid-fraction", 0.5, "--output", tmp_path / "run")
    assert ran.code == 0, ran.err
    for line in ("trying the largest batches: 1/3", "training 1/2", "held-out pairs: batch 1/"):
        assert line in ran.err
    model, data = world[1], world[3]
    ran = fpo("sae", "check", world[-1], "--model", model, "--data", data, "--backend", "torch")
    assert ran.code == 0, ran.err
    assert "texts: batch 1/" in ran.err


def test_perplexity_of_ordinary_text_is_measured_without_being_asked_for(
    fpo: Fpo, world: list[object], tmp_path: Path
) -> None:
    ran = fpo("train", *world, *RUN, "--iters", 1, "--output", tmp_path / "run", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["before"]["perplexity"] > 1
    assert "; perplexity " in next(v for v in ran.json["verdict"] if v.startswith("Drifted?"))


def test_words_between_colons_stay_words(capfd: pytest.CaptureFixture[str]) -> None:
    """rich would write a picture in their place, in paths and in what a model said."""
    output = Output()
    output.say("runs/:dog:.jsonl at 10:100:20")
    output.note("uploading :fire:")
    output.table(Table(("a", "b"), [(":smile:", "1")]))
    out, err = capfd.readouterr()
    assert out.splitlines()[0] == "runs/:dog:.jsonl at 10:100:20"
    assert out.splitlines()[-1].startswith(":smile:")
    assert err == "uploading :fire:\n"
