"""`fpo train --online`: what a person sees of it, and what is refused."""

import json
from pathlib import Path

import pytest

from .conftest import Fpo

FEW = ["--backend", "torch", "--device", "cpu", "--iters", 2, "--batch-size", 2, "--lr", 0.01]
FEW += ["--val-pairs", 2, "--greedy-answers", 0, "--no-report", "--online-tokens", 24]
JUDGED = ["--online", "plain", "--judge", "oracle", "--online-every", 1]


def test_a_run_tells_of_its_pools(fpo: Fpo, world: list[object], tmp_path: Path) -> None:
    """The trial foretells sampling; the log has sampling, judging and training time apart."""
    run = tmp_path / "run"
    ran = fpo("train", *world, *FEW, *JUDGED, "--output", run, "--json")
    assert ran.code == 0, ran.err
    assert "fresh samples" in ran.err
    pools = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    pools = [event for event in pools if event["kind"] == "pool"]
    assert [event["step"] for event in pools] == [1, 2]
    for event in pools:
        assert event["wanted"] == 2
        assert event["pairs"] + event["tied"] + event["no_verdict"] == 2
        times = ("sampling_seconds", "judging_seconds", "scoring_seconds", "training_seconds")
        assert event.keys() >= {*times}
    assert (run / "adapters.safetensors").is_file()


def test_a_dry_run_foretells_it_and_writes_nothing(
    fpo: Fpo, world: list[object], tmp_path: Path
) -> None:
    ran = fpo("train", *world, *FEW, *JUDGED, "--output", tmp_path / "run", "--dry-run", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["sampling_seconds"] > 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--online", "plain"], "judge is not set, but online plain asks one"),
        (["--online", "dpp", "--judge", "oracle"], "online is dpp, which asks nobody"),
        (["--online-every", "4"], "online_every is set while online is not"),
        (["--online", "dpr", "--judge", "oracle", "--link", "hinge"], "link"),
    ],
)
def test_mistakes(
    fpo: Fpo, world: list[object], tmp_path: Path, options: list[str], words: str
) -> None:
    ran = fpo("train", *world, *FEW, *options, "--output", tmp_path / "run")
    assert ran.code == 2
    assert words in ran.err
    assert not (tmp_path / "run").exists()
