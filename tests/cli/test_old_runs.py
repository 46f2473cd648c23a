"""What version 0.1.0 wrote before its core moved into packages still opens and goes on."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fpo.world import assets

from .conftest import Fpo

OLD = Path(__file__).parents[1] / "golden/old_run"
INPUTS = ["--model", "model", "--data", "pairs", "--sae", "sae.safetensors"]
INPUTS += ["--max-seq-length", "64"]
RUN = [
    *INPUTS,
    "--reference",
    "reference",
    "--val-pairs",
    "4",
    "--output",
    "run",
    "--iters",
    "12",
    "--batch-size",
    "2",
    "--learning-rate",
    "0.02",
]
RUN += ["--beta", "10", "--k", "10", "--rank", "1", "--target-modules", "v_proj,down_proj"]
RUN += ["--num-layers", "2", "--steps-per-report", "1", "--steps-per-eval", "4"]
RUN += ["--save-every", "4", "--resume", "--json"]
OPTIONS = {"torch": [], "mlx": ["--dropout", "0.1"]}
MEASURED = ("loss", "logps/chosen", "rewards/margins", "fpo/d_rejected", "fpo/kl_rejected")
Stopped = Callable[[str], Path]


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stopped:
    """Copies an interrupted run, its store and inputs into the current folder; step 4 of 12."""

    def place(backend: str) -> Path:
        for name in ("run", "reference"):
            shutil.copytree(OLD / backend / name, tmp_path / name)
        shutil.copytree(OLD / "pairs", tmp_path / "pairs")
        shutil.copy(OLD / "sae.safetensors", tmp_path)
        (tmp_path / "model").symlink_to(assets().model)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return place


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def scores_bit_for_bit(fpo: Fpo, backend: str, folder: Path) -> bool:
    """Whether a reference pass gives the old store's bits: then the arithmetic is the same."""
    ran = fpo("reference", *INPUTS, "--reference", "fresh", "--backend", backend)
    assert ran.code == 0, ran.err
    return files_of(folder / "fresh") == files_of(folder / "reference")


def check_result(ran: dict, finished: Path, rtol: float) -> None:
    expected = json.loads((finished / "result.json").read_text())
    for when in ("before", "after"):
        for name in MEASURED:
            assert ran[when][name] == pytest.approx(expected[when][name], rel=rtol, abs=1e-5), name
    assert ran["loss_last"] == pytest.approx(expected["loss_last"], rel=rtol)
    assert ran["best_step"] == expected["best_step"]


def check_adapter(run: Path, finished: Path, rtol: float) -> None:
    weights = load_file(run / "adapters.safetensors")
    expected = load_file(finished / "adapters.safetensors")
    assert weights.keys() == expected.keys()
    for name, array in expected.items():
        atol = rtol * float(abs(array).max())
        np.testing.assert_allclose(weights[name], array, rtol=rtol, atol=atol, err_msg=name)


@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_an_old_run_is_resumed_to_its_old_end(backend: str, fpo: Fpo, stopped: Stopped) -> None:
    folder = stopped(backend)
    stored = files_of(folder / "reference")
    ran = fpo("train", *RUN, *OPTIONS[backend], "--backend", backend)
    assert ran.code == 0, ran.err
    assert "going on after step 4" in ran.err
    assert files_of(folder / "reference") == stored, "the stored reference was not reused as it is"
    finished = OLD / backend / "finished"
    check_result(ran.json, finished, 1e-5)
    check_adapter(folder / "run", finished, 1e-4)
    if scores_bit_for_bit(fpo, backend, folder):
        adapters = [at / "adapters.safetensors" for at in (folder / "run", finished)]
        assert adapters[0].read_bytes() == adapters[1].read_bytes()


@pytest.mark.parametrize(("written", "read"), [("torch", "mlx")])
def test_an_old_checkpoint_goes_on_on_the_other_backend(
    written: str, read: str, fpo: Fpo, stopped: Stopped
) -> None:
    folder = stopped(written)
    ran = fpo("train", *RUN, *OPTIONS[written], "--backend", read)
    assert ran.code == 0, ran.err
    check_result(ran.json, OLD / written / "finished", 1e-3)
    check_adapter(folder / "run", OLD / written / "finished", 1e-2)


@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_an_old_adapter_is_evaluated(backend: str, fpo: Fpo, stopped: Stopped) -> None:
    """Both backends read the adapter of step 4, whose loss its own log has."""
    folder = stopped("torch")
    log = [json.loads(line) for line in (folder / "run/log.jsonl").read_text().splitlines()]
    expected = next(line for line in log if line["kind"] == "eval" and line["step"] == 4)
    ran = fpo(
        *("eval", *INPUTS, "--reference", "reference", "--adapter", "run/best", "--val-pairs", "4"),
        *("--beta", "10", "--k", "10", "--samples", "0", "--backend", backend, "--json"),
    )
    assert ran.code == 0, ran.err
    for name in ("loss", "rewards/margins", "fpo/d_rejected"):
        assert ran.json["after"][name] == pytest.approx(expected[f"eval_{name}"], rel=1e-3), name
