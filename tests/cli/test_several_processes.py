"""`fpo train` as one of several processes, and commands that are not shared."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Fpo, model_and_data
from .test_errors import refused

FEW = ["--iters", 2, "--batch-size", 4, "--learning-rate", 0.01, "--beta", 1, "--val-pairs", 8]
FEW += ["--greedy-answers", 0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_processes_speak_with_one_voice(
    fpo: Fpo, world: list[object], shared: Path, tmp_path: Path
) -> None:
    train = ["train", *world, *FEW, "--json"]
    alone = fpo(*train, "--backend", "torch", "--output", tmp_path / "alone")
    assert alone.code == 0, alone.err
    launch = [Path(sys.executable).parent / "torchrun", "--nproc-per-node", 2]
    launch += ["--master-port", free_port(), "-m", "fpo_cli"]
    environment = {
        "FPO_CACHE": str(shared / "cache"),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    ran = subprocess.run(
        list(map(str, [*launch, *train, "--output", tmp_path / "both"])),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("measuring the end") == 1
    found = json.loads(ran.stdout)
    for name in ("loss_first", "loss_last"):
        assert found[name] == pytest.approx(alone.json[name], rel=1e-5)
    for name in ("loss", "fpo/kl_rejected", "fpo/d_rejected"):
        assert found["after"][name] == pytest.approx(alone.json["after"][name], rel=1e-3)
    logs = [(tmp_path / run / "log.jsonl").read_text().count("\n") for run in ("alone", "both")]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("number", [0, 1])
def test_commands_for_one_process_are_refused(fpo: Fpo, number: int, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(number))
    ran = fpo("eval", *model_and_data())
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith("fpo: fpo eval runs in one" if not number else "fpo, process 1: ")


def test_a_launcher_of_the_other_backend_is_refused(
    fpo: Fpo, world: list[object], tmp_path: Path, monkeypatch
) -> None:
    train = ["train", *world, "--output", tmp_path / "run", "--backend"]
    monkeypatch.setenv("MLX_RANK", "0")
    refused(fpo(*train, "torch"), "started by mlx.launch, which is for mlx: use torchrun")
    monkeypatch.delenv("MLX_RANK")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    refused(fpo(*train, "mlx"), "started by torchrun, which is for torch: use mlx.launch")
    assert list(tmp_path.iterdir()) == []
