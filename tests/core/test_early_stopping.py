"""Early stopping: when it ends a run, what it says, and that a stopped run stays stopped."""

import math
from pathlib import Path
from typing import Any

import pytest

from fpo_core.errors import ConfigError, TrainingError
from fpo_core.train.resume import check_unfinished
from fpo_core.train.run_folder import checkpoints_in, is_finished
from fpo_core.train.validate import check_judged
from tests.core.pretend import PretendPolicy, config, data, log_of, run
from tests.core.test_resume import CrashError, crash_at

EACH_STEP: dict[str, Any] = {"steps_per_eval": 1, "steps_per_report": 4, "iters": 12}


def policy() -> PretendPolicy:
    """Validation is best after step 3, and gets worse from there."""
    return PretendPolicy(rises=3)


@pytest.mark.parametrize("metric", ["loss", "rewards/margins"])
@pytest.mark.parametrize("patience", [1, 2, 5])
def test_a_run_ends_after_so_many_validations_that_were_no_better(
    tmp_path: Path, patience: int, metric: str
) -> None:
    stop = {"early_stopping": patience, "best_metric": metric}
    result, events, _ = run(tmp_path, policy(), **EACH_STEP, **stop)
    state = result.state
    assert (state.step, state.best_step, state.stale) == (3 + patience, 3, patience)
    # 0.3 nats a token up on the chosen side: u = β · 0.3
    best = 2.0 * 0.3 if metric != "loss" else math.log1p(math.exp(-0.6))
    assert state.best_value == pytest.approx(best, rel=1e-6)
    said = f"after step {3 + patience} of 12: {metric} on held-out pairs was no better than at "
    assert result.early_end == f"{said}step 3 (in best/) in {patience} validations"
    assert [e.values["message"] for e in events if e.kind == "stopped_early"] == [result.early_end]
    assert sum(e.values["steps"] == 12 for e in events if e.kind == "train") >= 2
    assert is_finished(tmp_path / "run")
    assert (tmp_path / "run/adapter_model.safetensors").is_file()


def test_equal_accuracy_is_no_better(tmp_path: Path) -> None:
    """All four pairs are right from the first validation on."""
    stop = {"early_stopping": 4, "best_metric": "rewards/accuracies"}
    result, _, _ = run(tmp_path, policy(), **EACH_STEP, **stop)
    assert (result.state.step, result.state.best_step) == (5, 1)


def test_without_early_stopping_a_run_completes(tmp_path: Path) -> None:
    result, events, _ = run(tmp_path, policy(), **EACH_STEP)
    assert result.state.step == 12
    assert result.early_end is None
    assert result.state.stale == 9
    assert "stopped_early" not in [event.kind for event in events]


@pytest.mark.parametrize(
    ("kind", "step"),
    [("checkpoint", 2), ("eval", 4), ("checkpoint", 4), ("checkpoint", 5), ("stopped_early", 5)],
)
def test_a_crash_changes_nothing(tmp_path: Path, kind: str, step: int) -> None:
    stop: dict[str, Any] = {"early_stopping": 2, **EACH_STEP, "save_every": 2}
    whole, _, _ = run(tmp_path, policy(), name="whole", **stop)
    with pytest.raises(CrashError):
        run(tmp_path, policy(), **stop, emit=crash_at(kind, step))
    again, _, _ = run(tmp_path, policy(), **stop, resume=True)
    assert log_of(tmp_path / "run") == log_of(tmp_path / "whole")
    assert again.state.evals == whole.state.evals
    assert (again.state.step, again.early_end) == (5, whole.early_end)


def test_a_larger_patience_resumes_a_stopped_run(tmp_path: Path) -> None:
    _, _, settings = run(tmp_path, policy(), **EACH_STEP, early_stopping=2)
    checkpoint = checkpoints_in(tmp_path / "run").newest(pytest.fail)
    with pytest.raises(TrainingError, match=r"ended after 5 of 12 steps.* raise early_stopping"):
        check_unfinished(checkpoint, settings, 12)
    result, _, more = run(tmp_path, policy(), **EACH_STEP, early_stopping=4, resume=True)
    assert (result.state.step, result.state.best_step) == (7, 3)
    check_unfinished(checkpoint, more, 12)


def test_it_needs_held_out_pairs(tmp_path: Path) -> None:
    stop = config(tmp_path, early_stopping=3)
    check_judged(stop, data(tmp_path).valid)
    check_judged(config(tmp_path), None)
    with pytest.raises(ConfigError, match=r"early_stopping is 3, but no pairs .*valid_fraction"):
        check_judged(stop, None)
    by_accuracy = config(tmp_path, best_metric="rewards/accuracies")
    with pytest.raises(ConfigError, match="best_metric is rewards/accuracies, but no pairs"):
        check_judged(by_accuracy, None)
