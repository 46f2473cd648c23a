"""Checkpoints: written whole or not at all, found, refused, and gone on from."""

import dataclasses
import json
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from fpo_core.config import TrainConfig
from fpo_core.errors import ConfigError, StoppedError, TrainingError, WriteError
from fpo_core.events import Event
from fpo_core.io.digests import sealed
from fpo_core.io.processes import Process
from fpo_core.train.checkpoints import Checkpoints
from fpo_core.train.resume import FREE, MACHINE, PLACES, check_unchanged, find_checkpoint
from fpo_core.train.run_folder import checkpoints_in, is_finished
from fpo_core.train.schedule import step_seed
from tests.core.pretend import PretendPolicy, config, data, log_of, run

CADENCE: dict[str, Any] = {"steps_per_eval": 3, "save_every": 2, "steps_per_report": 3}


class CrashError(Exception):
    """Stands for a kill: nothing after it is run."""


def crash_at(kind: str, step: int):
    """A sink that ends the run where an event is told."""

    def emit(event: Event) -> None:
        if (event.kind, event.step) == (kind, step):
            raise CrashError

    return emit


def newest(folder: Path):
    return checkpoints_in(folder).newest(pytest.fail)


@pytest.mark.parametrize(
    ("kind", "step"),
    [("checkpoint", 2), ("eval", 3), ("checkpoint", 4), ("train", 6), ("checkpoint", 7)],
)
def test_a_resumed_run_equals_one_that_never_stopped(tmp_path: Path, kind: str, step: int) -> None:
    whole, _, _ = run(tmp_path, PretendPolicy(), name="whole", iters=7, **CADENCE)
    with pytest.raises(CrashError):
        run(tmp_path, PretendPolicy(), iters=7, **CADENCE, emit=crash_at(kind, step))
    assert not is_finished(tmp_path / "run")
    again, events, _ = run(tmp_path, PretendPolicy(), iters=7, **CADENCE, resume=True)
    for name in ("adapter_model.safetensors", "best/adapters.safetensors", "best/fpo_best.json"):
        one, two = ((tmp_path / run / name).read_bytes() for run in ("whole", "run"))
        assert one == two, name
    assert log_of(tmp_path / "run") == log_of(tmp_path / "whole")
    assert is_finished(tmp_path / "run")
    assert again.state.evals == whole.state.evals
    assert again.state.ratios == whole.state.ratios
    assert (again.state.best_step, again.state.best_value) == (7, whole.state.best_value)
    assert "step0" not in [event.kind for event in events]
    assert not [*tmp_path.rglob(".*")], "something temporary was left"


def test_the_window_outlasts_a_run_of_bad_steps(tmp_path: Path) -> None:
    bad = {"norms": (1.0, 1.0, float("nan"), float("nan"), float("nan"))}
    with pytest.raises(TrainingError, match="3 steps in a row, up to step 5"):
        run(tmp_path, PretendPolicy(**bad), nonfinite_limit=3, save_every=1, steps_per_eval=1)
    assert newest(tmp_path / "run").state.step == 2
    nan = PretendPolicy(norms=(float("nan"),) * 3)
    with pytest.raises(TrainingError, match="3 steps in a row, up to step 5"):
        run(tmp_path, nan, nonfinite_limit=3, save_every=1, steps_per_eval=1, resume=True)


def test_only_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    run(tmp_path, PretendPolicy(), save_every=1, save_total_limit=3)
    assert checkpoints_in(tmp_path / "run").steps() == [4, 5, 6]


def test_a_kill_between_saving_and_pruning_leaves_no_extra_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CrashError):
        run(tmp_path, PretendPolicy(), **CADENCE, emit=crash_at("checkpoint", 6))
    folder = tmp_path / "run/checkpoints"
    shutil.copytree(folder / "step-00000004", folder / "step-00000003")
    assert len(checkpoints_in(tmp_path / "run").steps()) == 3
    run(tmp_path, PretendPolicy(), **CADENCE, resume=True)
    assert checkpoints_in(tmp_path / "run").steps() == [4, 6]


def test_a_stop_signal_saves_a_checkpoint_and_says_how_to_resume(tmp_path: Path) -> None:
    steps: list[Event] = []
    with pytest.raises(StoppedError, match=r"after step 5: .*with resume") as stopped:
        run(
            tmp_path,
            PretendPolicy(),
            iters=20,
            steps_per_report=1,
            emit=lambda e: steps.append(e) if e.kind == "train" else None,
            stop=lambda: signal.SIGTERM if len(steps) == 5 else None,
        )
    assert stopped.value.exit_code == 143
    assert newest(tmp_path / "run").state.step == 5


def test_of_a_damaged_checkpoint_the_one_before_is_resumed(tmp_path: Path) -> None:
    run(tmp_path, PretendPolicy(), **CADENCE)
    found = checkpoints_in(tmp_path / "run")
    assert found.steps() == [4, 6]
    for name, damage in (
        ("trained.safetensors", lambda b: b[:-1] + bytes([b[-1] ^ 1])),
        ("optimiser.safetensors", lambda b: b[:-1]),
        ("state.json", lambda b: b[:-20]),
        ("state.json", lambda b: b'{"format": "fpo-checkpoint", "version": 1}'),
    ):
        file = tmp_path / "run/checkpoints/step-00000006" / name
        before = file.read_bytes()
        file.write_bytes(damage(before))
        told: list[str] = []
        assert found.newest(told.append).state.step == 4
        assert "step-00000006 is damaged" in told[0]
        file.write_bytes(before)
    assert newest(tmp_path / "run").state.step == 6
    meta = json.loads(file.read_text())
    file.write_text(json.dumps(sealed(meta | {"version": 3})))
    with pytest.raises(TrainingError, match="version 3, expected fpo-checkpoint version 2"):
        newest(tmp_path / "run")


def test_best_is_never_later_than_the_resumed_checkpoint(tmp_path: Path) -> None:
    run(tmp_path, PretendPolicy(), **CADENCE)
    best = json.loads((tmp_path / "run/best/fpo_best.json").read_text())
    assert best["step"] == 6
    (tmp_path / "run/checkpoints/step-00000006/state.json").unlink()
    settings = config(tmp_path / "run", resume=True)
    checkpoint = find_checkpoint(settings, print)
    assert checkpoint is not None
    assert checkpoint.state.best_step == 3
    with pytest.raises(CrashError):
        run(tmp_path, PretendPolicy(), **CADENCE, resume=True, emit=crash_at("warning", 4))
    assert not (tmp_path / "run/best").exists()
    assert checkpoints_in(tmp_path / "run").steps() == [4], "the damaged one stayed"
    result, events, _ = run(tmp_path, PretendPolicy(), **CADENCE, resume=True)
    assert "no longer holds the best result (step 3)" in str(events)
    assert result.state.best_step == 6


@pytest.mark.parametrize("change", ["beta", "schedule", "iters"])
def test_changed_settings_are_refused_key_by_key(tmp_path: Path, change: str) -> None:
    run(tmp_path, PretendPolicy())
    values = {"beta": 2.0, "schedule": "linear", "iters": 9}
    checkpoint, contents = newest(tmp_path / "run"), data(tmp_path).fingerprints()
    free = {"resume": True, "save_every": 1, "steps_per_report": 1, "save_total_limit": 9}
    check_unchanged(checkpoint, config(tmp_path / "elsewhere", **free), contents)
    with pytest.raises(ConfigError, match=rf"{change} was .*, is {values[change]}\)") as refused:
        check_unchanged(checkpoint, config(tmp_path, **{change: values[change]}), contents)
    assert f"allow_change {change}" in str(refused.value)
    with pytest.raises(ConfigError) as refused:
        check_unchanged(checkpoint, config(tmp_path, **values), contents)
    assert all(f"{key} was" in str(refused.value) for key in values)
    allowed = {"resume": True, "allow_change": tuple(values)}
    check_unchanged(checkpoint, config(tmp_path, **values, **allowed), contents)


def test_a_setting_younger_than_the_checkpoint_was_at_its_default(tmp_path: Path) -> None:
    run(tmp_path, PretendPolicy())
    checkpoint, contents = newest(tmp_path / "run"), data(tmp_path).fingerprints()
    del checkpoint.origin.config["truncation"]
    check_unchanged(checkpoint, config(tmp_path), contents)
    way = "drop" if config(tmp_path).truncation != "drop" else "cut"
    with pytest.raises(ConfigError, match=f"truncation was not set, is {way}"):
        check_unchanged(checkpoint, config(tmp_path, truncation=way), contents)


def test_other_contents_in_the_same_place_are_refused(tmp_path: Path) -> None:
    run(tmp_path, PretendPolicy())
    checkpoint, contents = newest(tmp_path / "run"), data(tmp_path).fingerprints()
    moved = config(tmp_path, data="moved", model="moved")
    check_unchanged(checkpoint, moved, contents)
    for key in ("data", "model", "feature_weights"):
        with pytest.raises(ConfigError, match=f"{key} was .* with other contents"):
            check_unchanged(checkpoint, config(tmp_path), contents | {key: "0"})
    dated = {"data": " (written yesterday)"}
    with pytest.raises(ConfigError, match=r"data was .* with other contents \(written yesterday\)"):
        check_unchanged(checkpoint, config(tmp_path), contents | {"data": "0"}, dated)
    # Fewer rows are other contents, which the changed setting explains.
    fewer = config(tmp_path, max_rows=3)
    with pytest.raises(ConfigError, match=r"\(max_rows was not set, is 3\)"):
        check_unchanged(checkpoint, fewer, contents | {"data": "0"})


def test_texts_that_may_end_the_run_are_compared(tmp_path: Path) -> None:
    run(tmp_path, PretendPolicy(), max_perplexity=1.05)
    checkpoint, contents = newest(tmp_path / "run"), data(tmp_path).fingerprints()
    other = config(tmp_path, max_perplexity=1.05, text="other.txt")
    with pytest.raises(ConfigError, match=r"text was not set, is other.txt"):
        check_unchanged(checkpoint, other, contents)


def test_a_changed_metric_compares_with_its_own_best_value(tmp_path: Path) -> None:
    policy, steps = PretendPolicy(rises=3), dict[str, Any](steps_per_eval=1, iters=6)
    with pytest.raises(CrashError):
        run(tmp_path, policy, **steps, emit=crash_at("checkpoint", 2))
    changed = dict[str, Any](best_metric="rewards/margins", allow_change=("best_metric",))
    policy = PretendPolicy(rises=1)  # worse from here on
    result, _, _ = run(tmp_path, policy, **steps, **changed, resume=True)
    assert (result.state.best_step, result.state.best_value) == (2, pytest.approx(2 * 0.2))


def test_a_window_over_two_objectives_has_the_means_of_both(tmp_path: Path) -> None:
    with pytest.raises(CrashError):
        run(tmp_path, PretendPolicy(), save_every=2, emit=crash_at("checkpoint", 4))
    allowed = ("objective", "alpha")
    changed = dict[str, Any](objective="simpo", alpha=None, allow_change=allowed)
    result, _, _ = run(tmp_path, PretendPolicy(), save_every=2, **changed, resume=True)
    assert result.state.last["fpo/ref_margin"] == pytest.approx(0.0)


def test_the_settings_that_are_not_compared_exist() -> None:
    assert {*FREE, *PLACES, *MACHINE} <= {*TrainConfig.names()}


def test_the_order_of_pairs_is_part_of_what_is_compared(tmp_path: Path) -> None:
    pairs = data(tmp_path).train
    assert pairs[:4].fingerprint() != pairs[4:8].fingerprint()
    assert pairs[::-1].fingerprint() != pairs.fingerprint()


def test_dropout_draws_anew_at_each_pass() -> None:
    seeds = {step_seed(s, step, part) for s in (0, 1) for step in (1, 2) for part in (0, 1)}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_there_is_nothing_to_resume_or_to_overwrite(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no checkpoint to go on from"):
        find_checkpoint(config(tmp_path / "run", resume=True), print)
    assert find_checkpoint(config(tmp_path / "run"), print) is None
    run(tmp_path, PretendPolicy())
    with pytest.raises(ConfigError, match="the last of step 6: go on with resume"):
        find_checkpoint(config(tmp_path / "run"), print)


@pytest.mark.parametrize("room", [0, 40, 90, 150, 400, 900, 1400])
def test_a_disk_that_fills_up_leaves_the_checkpoint_before(tmp_path: Path, room: int) -> None:
    policy = PretendPolicy()
    run(tmp_path, policy, **CADENCE, iters=4)
    folder = tmp_path / "run/checkpoints"
    before = {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    state = newest(tmp_path / "run").state
    state.step = 5
    origin = newest(tmp_path / "run").origin
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(WriteError, match=r"step-00000005 cannot be written \(.*[Ff]ile too"):
            Checkpoints(folder).save(policy, state, origin, 0)  # pyright: ignore
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert newest(tmp_path / "run").state.step == 4
    assert not [*tmp_path.rglob(".*")], "something temporary was left"


def test_a_full_disk_ends_the_run_with_one_line(tmp_path: Path, monkeypatch) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    def fill(event: Event) -> None:
        if event.kind == "checkpoint":
            monkeypatch.setattr("fpo_core.backend.sharded_files.write_arrays", full)

    with pytest.raises(WriteError) as failed:
        run(tmp_path, PretendPolicy(), **CADENCE, emit=fill)
    assert "step-00000003 cannot be written (No space left on device): free" in str(failed.value)
    assert "the checkpoint of step 2 of 6 is whole" in str(failed.value)
    assert "with resume" in str(failed.value)
    assert newest(tmp_path / "run").state.step == 2
    assert not [*tmp_path.rglob(".*")], "something temporary was left"


def test_leftovers_of_a_kill_before_the_first_checkpoint_are_removed(tmp_path: Path) -> None:
    dead = dataclasses.replace(Process.this(), started=1).tag
    folder = tmp_path / "run" / "checkpoints" / f".step-00000002.{dead}.tmp"
    folder.mkdir(parents=True)
    (tmp_path / "run" / f".fpo_config.json.{dead}.tmp").write_text("half")
    run(tmp_path, PretendPolicy())
    assert not [*tmp_path.rglob(".*")]
