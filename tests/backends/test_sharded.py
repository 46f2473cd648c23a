"""A model split among processes is the model: FSDP2 on gloo, with 4 processes, 2, and none."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from fpo_core.train.run_folder import checkpoints_in
from tests.backends.families import write_family
from tests.backends.runs import run_tiny, settings
from tests.backends.sharded_worker import COMPARED, compare
from tests.backends.support import write_tiny_model
from tests.backends.test_processes import series, started

OPTIONS = {"backend": "torch", "iters": 10, "steps_per_report": 1, "steps_per_eval": 5}
KINDS: dict[str, dict[str, Any]] = {
    # Batches of 3: among 4 processes one has no pair of its own.
    "lora": {"rank": 4, "batch_size": 3},
    "full": {
        **{"fine_tune_type": "full", "learning_rate": 1e-4, "batch_size": 4},
        **{"grad_checkpoint": True},
    },
}
STEP = "checkpoints/step-00000010"


def together(stages: dict[int, list[dict[str, Any]]]) -> str:
    """What so many processes say that do these jobs, stage by stage."""
    words = [(size, "sharded_worker", json.dumps(jobs)) for size, jobs in stages.items()]
    launch = started(sys.executable, "-m", "tests.backends.forked", *itertools.chain(*words))
    ran = subprocess.run(**launch, capture_output=True, timeout=600, check=False)
    return ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> SimpleNamespace:
    """Everything that several processes do here, first 4, then 2."""
    root: Path = tmp_path_factory.mktemp("sharded")
    model, models = root / "model", root / "models"
    write_tiny_model(model)
    for family in COMPARED:
        write_family(family, models / family, vocab_size=67)  # in rows that are not as many
    compare(models, None)
    for kind, options in KINDS.items():
        run_tiny(settings(model, root / f"1-{kind}", **OPTIONS, **options), root / "store")

    def job(output: str, kind: str, **changes: Any) -> dict[str, Any]:
        places = {"model": str(model), "store": str(root / "store"), "output": str(root / output)}
        return {**places, **OPTIONS, **KINDS[kind], "shard": True, **changes}

    anew = {"store": str(root / "store-4")}
    script = {"rank": 1, "step": 8, "signal": "SIGKILL"}
    stages = {
        4: [job("4-lora", "lora", **anew), job("4-full", "full")],
        2: [
            *(job(f"2-{kind}", kind) for kind in KINDS),
            {"compare": str(models)},
            {"stopped": str(root / "4-full"), "as": str(root / "moved")},
            job("moved", "full", resume=True, save_every=2, script=script),
        ],
    }
    said = together(stages)
    return SimpleNamespace(root=root, said=said, model=model, models=models)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_are_one(ran, kind, processes):
    """Bar: within 1e-5 after 10 steps."""
    folder = ran.root / f"{processes}-{kind}"
    assert (folder / STEP).is_dir(), ran.said
    one = ran.root / f"1-{kind}"
    for name in ("loss", "grad_norm", "fpo/d_rejected", "logps/chosen", "num_tokens"):
        first, other = series(one, "train", name), series(folder, "train", name)
        assert len(first) == len(other) == 10
        np.testing.assert_allclose(other, first, rtol=1e-5, atol=1e-6, err_msg=name)
    assert np.ptp(series(one, "eval", "eval_loss")) > 1e-4, "nothing moved"
    for file in ("trained", "optimiser"):
        apart = difference(
            one / STEP / f"{file}.safetensors", folder / STEP / f"{file}.safetensors"
        )
        assert apart < 1e-5
    results = ["adapter_model.safetensors"] if kind == "lora" else ["model.safetensors"]
    for name in (*results, f"best/{results[0]}"):
        assert difference(one / name, folder / name) < 1e-5
    if kind == "full":
        configurations = [(f / "config.json").read_text() for f in (one, folder)]
        assert configurations[0] == configurations[1]


def difference(first: Path, second: Path) -> float:
    one, two = load_file(first), load_file(second)
    assert one.keys() == two.keys()
    assert {n: (a.shape, a.dtype) for n, a in one.items()} == {
        n: (a.shape, a.dtype) for n, a in two.items()
    }
    apart = max(float(np.abs(one[name] - two[name]).max()) for name in one)
    if "FPO_SHOW" in os.environ:
        print(f"{second.relative_to(second.parents[3])}: {apart:.1e} apart")
    return apart


def test_the_reference_pass_is_one_processs(ran):
    one, four = (load_file(ran.root / s / "shard-00000.safetensors") for s in ("store", "store-4"))
    assert one.keys() == four.keys()
    for name, array in one.items():
        np.testing.assert_allclose(four[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("processes", [2, 4])
def test_no_process_holds_the_whole_model(ran, kind, processes):
    """Bar: weights and moments are 1/N, and whole at once is no more than one block."""
    for rank in range(processes):
        path = ran.root / f"{processes}-{kind}" / f"bytes-{rank}.json"
        found = json.loads(path.read_text())
        # Of adapters of rank 4 on 4 processes each has a row; all counts divide so here.
        assert found["here"] == found["all"] / processes
        assert found["gathered"] == found["block"]


def test_a_run_moves_from_4_processes_to_2_of_which_one_dies_and_to_1(ran):
    """Bar: a clear end, a good checkpoint, and what follows is exact to 1e-6."""
    moved = ran.root / "moved"
    assert "process 0: another process of this run was lost" in ran.said
    assert "the checkpoint of step 6 of 10 is whole, the best is that of step 5" in ran.said
    assert checkpoints_in(moved).newest(pytest.fail).state.step == 6
    options = {**OPTIONS, **KINDS["full"], "resume": True}
    run_tiny(settings(ran.model, moved, **options), ran.root / "store")
    for file in (f"{STEP}/trained.safetensors", f"{STEP}/optimiser.safetensors"):
        assert difference(ran.root / "4-full" / file, moved / file) < 1e-6


@pytest.mark.parametrize("family", COMPARED)
def test_families_split(ran, family):
    """Tied embeddings, scaled ones, capped logits, names without the body's; KL and its gradient,
    entropy, sampling, and the logit lens; with more tokens in one process than in the other.
    """
    for rank in (0, 1):
        whole, split = (
            load_file(ran.models / f"{family}-{state}-{rank}.safetensors")
            for state in ("whole", "split")
        )
        for name, array in whole.items():
            np.testing.assert_allclose(split[name], array, rtol=1e-4, atol=1e-5, err_msg=name)
        assert np.abs(whole["logps"]).min() > 1
