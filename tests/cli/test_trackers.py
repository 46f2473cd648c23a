"""Experiment trackers get what the log gets, without a network."""

import json
import struct
from pathlib import Path

import pytest

from .conftest import Fpo

FEW = [
    "--greedy-answers",
    0,
    "--iters",
    2,
    "--steps-per-report",
    1,
    "--batch-size",
    2,
    "--val-pairs",
    4,
]


def tensorboard_scalars(folder: Path) -> dict[tuple[str, int], float]:
    """Scalars by tag and step, from records of length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for file in folder.glob("events.*"):
        data = file.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + size])
            found |= {(v.tag, event.step): v.simple_value for v in event.summary.value}
            data = data[16 + size :]
    return found


def test_both_trackers_get_the_metrics_of_the_log(
    fpo: Fpo, world: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = tmp_path / "run"
    options = ["--backend", "torch", "--output", run, "--report-to", "tensorboard,wandb", "--json"]
    ran = fpo("train", *world, *FEW, *options)
    assert ran.code == 0, ran.err
    scalars = tensorboard_scalars(run / "tensorboard")
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for line in log:
        if line["kind"] in ("train", "eval"):
            name = "loss" if line["kind"] == "train" else "eval_loss"
            assert scalars[f"{line['kind']}/loss", line["step"]] == pytest.approx(line[name])
    assert {step for tag, step in scalars if tag == "train/loss"} == {1, 2}
    (record,) = run.glob("wandb/offline-run-*/run-*.wandb")
    written = record.read_bytes()
    for name in (b"train/loss", b"eval/rewards/margins", b"learning_rate"):
        assert name in written


def test_an_account_that_is_missing_is_one_line(
    fpo: Fpo, world: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def init(**_: object) -> None:
        raise wandb.Error("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", init)
    options = ["--backend", "torch", "--output", tmp_path / "run", "--report-to", "wandb"]
    ran = fpo("train", *world, *FEW, *options)
    assert ran.code == 2
    assert "report_to wandb cannot begin (No API key configured" in ran.err


@pytest.mark.parametrize(("name", "words"), [("mlflow", "expected some of"), ("wandb", "pip")])
def test_an_unknown_or_missing_tracker_is_refused_before_the_run(
    fpo: Fpo,
    world: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    words: str,
) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "wandb" else real(n, *a)
    )
    run = tmp_path / "run"
    ran = fpo("train", *world, *FEW, "--output", run, "--report-to", name)
    assert ran.code == 2
    assert words in ran.err
    assert not run.exists()
