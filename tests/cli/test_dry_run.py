"""`fpo train --dry-run`, and what is said of a Mac that sleeps."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fpo import preflight_report
from fpo.preflight_report import sleep_minutes

from .conftest import Fpo


@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_a_dry_run_measures_and_writes_nothing(
    backend: str, fpo: Fpo, world: list[object], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ran = fpo("train", *world, "--backend", backend, "--output", run, "--dry-run", "--json")
    assert ran.code == 0, ran.err
    found = ran.json
    assert (found["steps"], found["pairs"], found["fits"]) == (3, 4, True)
    assert found["peak_memory"] > 2**20
    assert found["train_seconds"] > 0
    assert found["reference_seconds"] > 0
    assert not run.exists()
    assert "largest batch 4 pairs × 64 tokens" in ran.err
    assert "12 pairs are only 3 steps of 4 pairs: lower grad_accumulation_steps" in ran.err


@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_it_changes_nothing_of_the_run_that_follows(
    backend: str, fpo: Fpo, world: list[object], tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    few = ["--backend", backend, "--iters", 2, "--batch-size", 2, "--dropout", 0.1, "--json"]
    for name, option in (("with", "--preflight"), ("without", "--no-preflight")):
        ran = fpo("train", *world, *few, "--output", tmp_path / name, option)
        assert ran.code == 0, ran.err
    one, two = (load_file(tmp_path / n / "adapters.safetensors") for n in ("with", "without"))
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


PMSET = "System-wide power settings:\nCurrently in use:\n standby  1\n sleep    {}\n disksleep 10\n"


@pytest.mark.parametrize(
    ("platform", "minutes", "expected"),
    [
        ("darwin", "10 (sleep prevented)", 10),
        ("darwin", "0", None),
        ("linux", "1", None),
    ],
)
def test_minutes_until_a_mac_sleeps(
    platform: str, minutes: str, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    said = SimpleNamespace(stdout=PMSET.format(minutes))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: said)
    assert sleep_minutes() == expected


def test_a_run_longer_than_that_is_warned_of(
    fpo: Fpo, world: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight_report, "sleep_minutes", lambda: 1)
    options = ["--iters", 100000, "--output", tmp_path / "run", "--dry-run"]
    ran = fpo("train", *world, "--backend", "torch", *options)
    assert "`caffeinate -i`" in ran.err
