"""`fpo train` killed, interrupted, and gone on with, as a user does it."""

import dataclasses
import json
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from fpo.world import assets
from fpo_core.io.digests import sealed
from fpo_core.io.processes import Process

from .conftest import PROGRAM, Fpo, environment, model_and_data
from .test_errors import refused

TIMES = {"tokens_per_second", "seconds_per_step", "seconds"}
TIMES |= {"peak_memory", "active_memory", "cache_memory"}
RUN = [
    "--greedy-answers",
    0,
    "--iters",
    40,
    "--batch-size",
    2,
    "--grad-accumulation-steps",
    2,
    "--dropout",
    0.1,
]
RUN += ["--learning-rate", 0.01, "--beta", 1, "--val-pairs", 4, "--steps-per-report", 3]
RUN += ["--steps-per-eval", 10, "--save-every", 20, "--rank", 2, "--num-layers", 2]


def log_of(run: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def killed(options: list[object], number: int, after: str) -> tuple[int, str]:
    """A run in a process of its own that gets a signal once its log holds a line."""
    log = Path(str(options[options.index("--output") + 1])) / "log.jsonl"
    command = [*PROGRAM, *map(str, options)]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (log.is_file() and after in log.read_text()):
            time.sleep(0.005)
        process.send_signal(number)
        _, err = process.communicate()
    return process.returncode, err


@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_a_killed_run_goes_on_bit_for_bit(
    backend: str, fpo: Fpo, world: list[object], tmp_path: Path
) -> None:
    """Bar: 40 steps = 20, kill -9, resume, 20; weights bitwise, logs but for times and memory."""
    train = ["train", *world, *RUN, "--backend", backend]
    whole = fpo(*train, "--output", tmp_path / "whole", "--json")
    assert whole.code == 0, whole.err
    cut = [*train, "--output", tmp_path / "cut"]
    code, err = killed(cut, signal.SIGKILL, '"kind": "train", "step": 24')
    assert code == -signal.SIGKILL, err
    steps = {path.name for path in (tmp_path / "cut/checkpoints").glob("step-*")}
    assert "step-00000020" in steps
    assert "step-00000040" not in steps, "the kill came too late to show anything"
    ran = fpo(*cut, "--resume", "--json")
    assert ran.code == 0, ran.err
    assert "going on after step 20" in ran.err
    names = ["adapter_model.safetensors", "adapters.safetensors", "best/adapters.safetensors"]
    names += [f"checkpoints/step-00000040/{n}.safetensors" for n in ("trained", "optimiser")]
    for name in names:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert log_of(tmp_path / "cut") == log_of(tmp_path / "whole")
    for name in ("before", "after", "verdict", "loss_first", "loss_last", "best_step"):
        assert ran.json[name] == whole.json[name], name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_and_says_how_to_resume(
    number: signal.Signals, fpo: Fpo, world: list[object], tmp_path: Path
) -> None:
    train = ["train", *world, *RUN, "--backend", "torch", "--steps-per-report", 1]
    train += ["--iters", 12, "--output", tmp_path / "run"]
    code, err = killed(train, number, '"kind": "train", "step": 4')
    assert code == 128 + number, err
    last = err.strip().splitlines()[-1]
    assert last.startswith("fpo: stopped after step ")
    step = int(last.split()[4].rstrip(":"))
    assert f"checkpoint of step {step} of 12 is whole: the same settings with resume" in last
    assert "Traceback" not in err
    refused(fpo(*train), "holds a run with checkpoints", "with resume")
    refused(fpo(*train, "--resume", "--beta", 2), "beta was 1.0, is 2.0", "allow_change beta")
    ran = fpo(*train, "--resume")
    assert ran.code == 0, ran.err
    assert f"going on after step {step}" in ran.err
    refused(fpo(*train, "--resume"), "ended after 12 of 12 steps, so nothing is left")
    # Killed while the end was measured: that is done again, and what it left goes.
    gone = dataclasses.replace(Process.this(), started=1)
    left = [tmp_path / "run" / name for name in ("report.html", f".curves.png.{gone.tag}.tmp")]
    left[0].rename(left[1])
    ran = fpo(*train, "--resume")
    assert ran.code == 0, ran.err
    assert [path.exists() for path in left] == [True, False]
    refused(fpo(*train, "--resume"), "so nothing is left")


def test_nothing_to_resume_and_settings_that_do_not_exist(
    fpo: Fpo, world: list[object], tmp_path: Path
) -> None:
    train = ["train", *world, "--output", tmp_path / "run"]
    refused(fpo(*train, "--resume"), "no checkpoint to go on from")
    refused(fpo(*train, "--allow-change", "beta"), "allow_change is set while resume is not")
    refused(fpo(*train, "--resume", "--allow-change", "bta"), "'bta'")
    assert list(tmp_path.iterdir()) == []


def test_a_quickstart_may_be_repeated(fpo: Fpo, tmp_path: Path) -> None:
    few = ["--iters", 1, "--batch-size", 2, "--samples", 1, "--max-rows", 4, "--json"]
    train = ["quickstart", "--backend", "torch", *few, "--output", tmp_path / "quick"]
    assert [fpo(*train).code for _ in range(2)] == [0, 0]


def test_a_full_disk_is_one_line_and_the_earlier_checkpoint_stays(
    fpo: Fpo, world: list[object], tmp_path: Path
) -> None:
    """The limit on the size of a file stands for the end of the disk: writes fail for real."""
    train = ["train", *world, "--backend", "torch", "--rank", 2, "--num-layers", 2]
    train += ["--batch-size", 4, "--val-pairs", 4, "--output", tmp_path / "run"]
    assert fpo(*train, "--iters", 2).code == 0
    folder = tmp_path / "run/checkpoints"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    more = [*train, "--iters", 4, "--resume", "--allow-change", "iters"]
    size = (folder / "step-00000002/trained.safetensors").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
    try:
        ran = fpo(*more)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert ran.code == 2
    last = ran.err.strip().splitlines()[-1]
    assert last.startswith("fpo: "), ran.err
    assert "step-00000003 cannot be written (File too large" in last
    assert "the checkpoint of step 2 of 4 is whole" in last
    assert "Traceback" not in ran.err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert fpo(*more).code == 0


@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_a_template_that_wrote_another_day_is_named_as_the_cause(
    backend: str, fpo: Fpo, tmp_path: Path
) -> None:
    """Runs from before `template_date` was a setting wrote the date of their day."""
    model = Path(shutil.copytree(assets().model, tmp_path / "dated"))
    template = (model / "chat_template.jinja").read_text()
    dated = "{{- 'large ' if strftime_now('%d') == '02' else 'small ' -}}"
    (model / "chat_template.jinja").write_text(dated + template)
    run = ["train", "--model", model, *model_and_data()[2:], *RUN, "--alpha", 0]
    run += ["--backend", backend, "--output", tmp_path / "run", "--iters", 2, "--save-every", 1]
    first = fpo(*run, "--template-date", "2026-01-02")
    assert first.code == 0, first.err
    for path in (tmp_path / "run" / "checkpoints").glob("step-*/state.json"):
        state = json.loads(path.read_text())
        del state["config"]["template_date"]
        path.write_text(json.dumps(sealed(state)))
    more = ["--resume", "--iters", 3, "--allow-change", "iters"]
    refused(fpo(*run, *more), "with other contents (its chat template writes the date: set templ")
    ran = fpo(*run, *more, "--template-date", "2026-01-02")
    assert ran.code == 0, ran.err
