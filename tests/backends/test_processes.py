"""Several processes on this machine make one run: torch with gloo, MLX with its ring."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from fpo_core.errors import ConfigError
from fpo_core.train.run_folder import checkpoints_in
from tests.backends.runs import run_tiny, settings

ROOT = Path(__file__).parents[2]
OPTIONS = {"iters": 10, "batch_size": 4, "steps_per_report": 1, "steps_per_eval": 5}
KINDS = {
    "lora": {"rank": 4},
    "full": {"fine_tune_type": "full", "learning_rate": 1e-4, "grad_accumulation_steps": 2},
    "lozo": {"optimizer": "lozo-m", "zo_interval": 4, "learning_rate": 1e-2},
    "online": {"online": "dpr", "online_share": 0.6, "online_every": 4, "online_tokens": 8},
}


def command(backend: str, module: str = "process_worker", **given: object) -> dict[str, Any]:
    """How two processes of one run are started."""
    text = json.dumps({"backend": backend, **given})
    if backend == "torch":
        return started(sys.executable, "-m", "tests.backends.forked", 2, module, text)
    ring = [sys.executable, "-m", "tests.rings"]
    return started(*ring, sys.executable, "-m", f"tests.backends.{module}", text)


def started(*args: object) -> dict[str, Any]:
    """Options of `subprocess` for a command line that finds these tests."""
    paths = [str(ROOT), str(ROOT / "convert"), str(ROOT / "cli")]
    return {
        "args": list(map(str, args)),
        "env": os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        "cwd": ROOT,
        "text": True,
    }


def together(
    backend: str, module: str = "process_worker", **given: object
) -> subprocess.CompletedProcess[str]:
    """Two processes to their end."""
    started = command(backend, module, **given)
    return subprocess.run(**started, capture_output=True, timeout=300, check=False)


def series(folder: Path, kind: str, name: str) -> np.ndarray:
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return np.array([line[name] for line in lines if line["kind"] == kind])


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_are_one(backend, tiny, tmp_path, kind):
    """Bar: within 1e-5 after 10 steps, and the stored reference is one process's."""
    options = {"backend": backend, **OPTIONS, **KINDS[kind]}
    one, two = tmp_path / "one", tmp_path / "two"
    run_tiny(settings(tiny, one, **options), tmp_path / "store")
    ran = together(**options, model=str(tiny), output=str(two), store=str(tmp_path / "shared"))
    assert (two / "adapter_config.json").is_file() or (two / "model.safetensors").is_file(), ran
    for name in ("loss", "grad_norm", "fpo/d_rejected", "logps/chosen", "num_tokens", "epoch"):
        first, second = series(one, "train", name), series(two, "train", name)
        assert len(first) == len(second) == 10
        # A difference of losses is divided by 2ε = 2e-3, and their rounding with it.
        atol = 2e-4 if (kind, name) == ("lozo", "grad_norm") else 1e-7
        np.testing.assert_allclose(second, first, rtol=1e-5, atol=atol, err_msg=name)
    losses = [series(folder, "eval", "eval_loss") for folder in (one, two)]
    assert len(losses[0]) == 3
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert np.ptp(losses[0]) > 1e-4, "nothing moved: the comparison would be empty"
    shards = [load_file(tmp_path / s / "shard-00000.safetensors") for s in ("store", "shared")]
    assert shards[0].keys() == shards[1].keys()
    for name, array in shards[0].items():
        np.testing.assert_allclose(shards[1][name], array, rtol=1e-5, err_msg=name)
    weights = [
        load_file(checkpoints_in(folder).folder / "step-00000010" / "trained.safetensors")
        for folder in (one, two)
    ]
    apart = max(np.abs(weights[1][name] - w).max() for name, w in weights[0].items())
    if "FPO_SHOW" in os.environ:
        loss = series(one, "train", "loss"), series(two, "train", "loss")
        print(f"{backend} {kind}: loss {np.abs(loss[0] - loss[1]).max():.1e}, weights {apart:.1e}")
    assert apart < 1e-5


@pytest.mark.parametrize(("backend", "rank"), [("torch", 0), ("mlx", 1)])
def test_a_dead_process_ends_the_run_with_a_good_checkpoint(backend, tiny, tmp_path, rank):
    options = {"backend": backend, **OPTIONS, "dropout": 0.2, "iters": 6, "save_every": 2}
    options["steps_per_eval"] = 6
    places = {"model": str(tiny), "store": str(tmp_path / "store")}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    ran = together(**options, **places, output=str(whole))
    assert checkpoints_in(whole).steps() == [4, 6], ran
    script = {"rank": rank, "step": 5, "signal": "SIGKILL"}
    ran = together(**options, **places, output=str(cut), script=script)
    said = ran.stderr + ran.stdout
    assert f"process {1 - rank}: another process of this run was lost" in said, ran
    assert "the checkpoint of step 4 of 6 is whole: the same settings with resume" in said
    assert checkpoints_in(cut).newest(pytest.fail).state.step == 4
    alone = settings(tiny, cut, **options, resume=True)
    with pytest.raises(ConfigError, match=r"\(processes was 2, is 1\).*allow_change processes"):
        run_tiny(alone, tmp_path / "store")
    together(**options, **places, output=str(cut), resume=True)
    for name in ("trained", "optimiser"):
        file = f"checkpoints/step-00000006/{name}.safetensors"
        assert (whole / file).read_bytes() == (cut / file).read_bytes()


def test_one_process_that_hears_a_signal_stops_both(tiny, tmp_path):
    options = {"backend": "torch", **OPTIONS, "save_every": 9, "steps_per_eval": 9}
    script = {"rank": 1, "step": 4, "signal": "SIGTERM"}
    output, store = str(tmp_path / "run"), str(tmp_path / "store")
    ran = together(**options, model=str(tiny), output=output, store=store, script=script)
    assert "process 0: stopped after step 4: the checkpoint of step 4" in ran.stderr + ran.stdout
    assert checkpoints_in(tmp_path / "run").steps() == [4]


def test_a_process_that_stands_still_is_named_by_the_other(backend, tiny, tmp_path):
    """The other waits in a sum that nothing ends, but for the sign of life that fails to come."""
    pid, output = tmp_path / "pid", tmp_path / "run"
    script = {"rank": 1, "step": 3, "signal": "SIGSTOP", "pid": str(pid)}
    options = {"backend": backend, **OPTIONS, "process_timeout": 8.0, "script": script}
    places = {"model": str(tiny), "output": str(output), "store": str(tmp_path / "store")}
    with (tmp_path / "said").open("w+") as said:
        started = command(**options, **places)
        with subprocess.Popen(**started, stdout=said, stderr=subprocess.STDOUT) as launcher:
            end = time.monotonic() + 240
            while "no sign of life" not in (tmp_path / "said").read_text():
                assert launcher.poll() is None, (tmp_path / "said").read_text()
                assert time.monotonic() < end
                time.sleep(0.1)
            os.kill(int(pid.read_text()), signal.SIGKILL)
    text = (tmp_path / "said").read_text()
    assert "fpo, process 0: process 1 gave no sign of life for 8 s (process_timeout)" in text
    assert launcher.returncode
