"""`dtype` auto on a CPU: probed once, kept by the run and its store, and told."""

import json
from pathlib import Path
from typing import Any

import pytest

import fpo
from fpo.installation import rate_lines
from fpo_core.backend.precision import Probe
from fpo_core.reference.reader import ReferenceStore

BACKENDS = ("torch", "mlx")


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Probe]:
    """Every model is large enough, and the probe finds what is in the list, last first.

    No store of another test lies in the cache: a run on it would compute in its precision.
    """
    monkeypatch.setenv("FPO_CACHE", str(tmp_path / "cache"))
    found = [Probe(9.0, 1.0)]
    monkeypatch.setattr("fpo.precision.SMALLEST", 1)
    monkeypatch.setattr("fpo.precision.probe", lambda _: found[-1])
    return found


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_keeps_its_precision(
    backend: str, small: dict[str, Any], steps: dict[str, Any], probed: list[Probe], tmp_path: Path
) -> None:
    settings = small | steps | {"backend": backend, "greedy_answers": 0, "output": tmp_path / "run"}
    settings |= {"report": False, "preset": "none"}  # an evaluation's loss has no supervised term
    seen: list[fpo.Event] = []
    with pytest.raises(fpo.StoppedError):
        fpo.train(**settings, sink=seen.append, stop=lambda: 15)
    notes = [event.values.get("message") for event in seen]
    assert "computing in bfloat16: bfloat16 multiplies 9.0 times as fast as float32 here" in notes
    assert ReferenceStore.made_with(tmp_path / "run/reference")["dtype"] == "bfloat16"
    probed.append(Probe(1.0, 9.0))  # from now on the machine is another
    resumed = fpo.train(**settings, resume=True)
    (state,) = (tmp_path / "run/checkpoints").glob("step-*2/state.json")
    assert json.loads(state.read_text())["made_with"]["dtype"] == "bfloat16"
    assert resumed.loop.state.step == 2
    # Another run on the same store has its precision too, and so has an evaluation.
    other = settings | {"output": tmp_path / "other", "reference": tmp_path / "run/reference"}
    fpo.train(**other)
    (state,) = (tmp_path / "other/checkpoints").glob("step-*2/state.json")
    assert json.loads(state.read_text())["made_with"]["dtype"] == "bfloat16"
    here = {"backend": backend, "adapter": tmp_path / "run", "greedy_answers": 0, "samples": 0}
    here["text"] = steps["text"]
    evaluated = fpo.evaluate(**small | here, val_pairs=2)
    loss = resumed.metrics["loss"]
    assert evaluated.metrics["loss"] == pytest.approx(loss, abs=1e-6)


def test_what_is_set_is_not_probed(
    small: dict[str, Any], steps: dict[str, Any], probed: list[Probe], tmp_path: Path
) -> None:
    probed.clear()
    settings = small | steps | {"output": tmp_path / "run", "greedy_answers": 0}
    fpo.train(**settings, dtype="float32")
    assert ReferenceStore.made_with(tmp_path / "run/reference")["dtype"] == "float32"


def test_a_reference_is_stored_in_what_the_probe_finds(
    small: dict[str, Any], probed: list[Probe], tmp_path: Path
) -> None:
    stored = fpo.reference(**small, reference=tmp_path / "store")
    assert ReferenceStore.made_with(stored.reference)["dtype"] == "bfloat16"


def test_small_models_are_not_probed(run: fpo.TrainingRun) -> None:
    """The world's model is: a step of it consists of calls."""
    assert ReferenceStore.made_with(run.reference)["dtype"] == "float32"


def test_the_doctor_says_what_follows() -> None:
    def rate(threads: int | None, float32: float, bfloat16: float) -> dict[str, Any]:
        return {"threads": threads, "float32": float32, "bfloat16": bfloat16}

    assert rate_lines([]) == []
    assert rate_lines([rate(None, 6.5, 1.2)]) == [
        "CPU products in GFLOPS: float32 6.5; bfloat16 1.2"
    ]
    busy = rate_lines([rate(1, 60.0, 120.0), rate(2, 50.0, 110.0)])
    assert busy[0] == (
        "CPU products in GFLOPS: float32 60 on 1 thread, 50 on 2 threads; "
        "bfloat16 120 on 1 thread, 110 on 2 threads"
    )
    assert "bfloat16 trains faster here" in busy[1]
    assert "set OMP_NUM_THREADS=1" in busy[2]
    assert len(rate_lines([rate(1, 60.0, 20.0), rate(2, 110.0, 30.0)])) == 1
