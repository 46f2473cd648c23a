"""`fpo train` as one of several processes, and commands that are not shared."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fpo_cli.commands.train import train as command
from tests.ports import free_port

from .conftest import Fpo, environment, model_and_data
from .test_errors import refused

FEW = ["--iters", 2, "--batch-size", 4, "--learning-rate", 0.01, "--beta", 1, "--val-pairs", 8]
FEW += ["--greedy-answers", 0]


def launcher(name: str) -> list[object]:
    """The documented line that starts two processes, as far as `train`."""
    line = re.search(rf"`({re.escape(name)} .*? -m fpo_cli) train …`", command.help)
    assert line is not None
    words = line[1].replace(" N", " 2").replace("python", sys.executable).split()
    port = "-p" if name == "mlx.launch" else "--master-port"
    return [Path(sys.executable).parent / name, port, free_port(), *words[1:]]


@pytest.mark.parametrize(("name", "backend"), [("torchrun", "torch"), ("mlx.launch", "mlx")])
def test_two_processes_speak_with_one_voice(
    fpo: Fpo, world: list[object], tmp_path: Path, name: str, backend: str
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The red lamp is here.\n")
    run = ["train", *world, *FEW, "--json", "--backend", backend, "--text", text]
    run += ["--no-preflight", "--no-report"]
    alone = fpo(*run, "--output", tmp_path / "alone")
    assert alone.code == 0, alone.err
    ran = subprocess.run(
        list(map(str, [*launcher(name), *run, "--output", tmp_path / "both"])),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("measuring the end") == 1
    found = json.loads(ran.stdout)
    for metric in ("loss_first", "loss_last"):
        assert found[metric] == pytest.approx(alone.json[metric], rel=1e-5)
    # A feature near its threshold flips with the last bit of a sum, which differs by the BLAS.
    for metric, rel in {"loss": 1e-4, "fpo/kl_rejected": 1e-2, "fpo/d_rejected": 1e-2}.items():
        assert found["after"][metric] == pytest.approx(alone.json["after"][metric], rel=rel)
    logs = [
        (tmp_path / output / "log.jsonl").read_text().count("\n") for output in ("alone", "both")
    ]
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


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("mlx", "every process of mlx holds the whole model: leave it out and use adapters on a"),
        ("torch", "this is one process: start several with torchrun, or leave shard out"),
    ],
)
def test_a_model_that_cannot_be_split_is_refused(
    fpo: Fpo, world: list[object], tmp_path: Path, backend: str, said: str
) -> None:
    refused(
        fpo("train", *world, "--output", tmp_path / "run", "--backend", backend, "--shard"), said
    )
    assert list(tmp_path.iterdir()) == []
