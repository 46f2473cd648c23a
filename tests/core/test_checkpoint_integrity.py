"""Every bit of a checkpoint counts; divergence prunes nothing good; a stop leaves no trace."""

import json
import os
import signal
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fpo_core.errors import StoppedError, TrainingError
from fpo_core.io.digests import sampled_sha256
from fpo_core.train.checkpoints import Checkpoints, Origin
from fpo_core.train.run_folder import checkpoints_in
from fpo_core.train.state import FAR_LOSS, RunState
from tests.core.pretend import PretendPolicy, config, log_of, run

STATE = "state.json"


class Large(PretendPolicy):
    """Weights of 12 MiB, of which samples cover a third."""

    def trained(self):
        return {"w": np.arange(3 << 20, dtype=np.float32) + self.shift}


def save(folder: Path, steps=(1, 2), policy: Any = None) -> Checkpoints:
    checkpoints = Checkpoints(folder, keep=len(steps))
    policy = policy or PretendPolicy()
    for step in steps:
        origin = Origin(config(folder).to_mapping(), {"model": "m"}, Origin.made_by(policy.info, 1))
        checkpoints.save(policy, RunState(step=step), origin, 10 * step)
    return checkpoints


def newest(checkpoints: Checkpoints) -> tuple[int, list[str]]:
    told: list[str] = []
    return checkpoints.newest(told.append).state.step, told


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(0, at))


def test_any_bit_of_a_large_file_counts(tmp_path):
    checkpoints = save(tmp_path, policy=Large())
    path = tmp_path / "step-00000002" / "trained.safetensors"
    size = path.stat().st_size
    # Between the samples of before too: 64 pieces of 64 KiB, spread evenly.
    for at in [size // 63 * i + 100_000 for i in range(60)] + [0, 9, size - 1]:
        flip(path, at)
        step, told = newest(checkpoints)
        assert step == 1
        assert "step-00000002 is damaged (trained.safetensors is not what was written" in told[0]
        flip(path, at)
        os.utime(path, ns=(0, 10 * at + 1))
    assert newest(checkpoints) == (2, [])


def change(value: Any, path: tuple, new: Any) -> Any:
    """A deep copy with one value replaced; of a missing key, added."""
    if not path:
        return new
    copy = dict(value)
    copy[path[0]] = change(copy.get(path[0]), path[1:], new)
    return copy


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("state", "step"), 3),
        (("state", "step"), "2"),
        (("state", "num_tokens"), 1),
        (("state", "window", "seconds"), None),
        (("state", "best_value"), 0.25),
        (("state", "evals"), [[1, {}]]),
        (("config", "learning_rate"), 1e-9),
        (("fingerprints", "model"), "n"),
        (("made_with", "dtype"), "float16"),
        (("log_bytes",), 0),
        (("files",), {}),
        (("files",), None),
        (("version",), 1),
        (("version",), 3),
        (("format",), "other"),
        (("state",), []),
        (("sha256",), "0" * 64),
        (("more",), 1),
    ],
)
def test_any_change_of_the_state_gives_way_to_the_checkpoint_before(tmp_path, path, value):
    checkpoints = save(tmp_path)
    file = tmp_path / "step-00000002" / STATE
    file.write_text(json.dumps(change(json.loads(file.read_text()), path, value)))
    step, told = newest(checkpoints)
    assert step == 1
    assert "step-00000002 is damaged" in told[0]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, "{}", '{"a":' * 200 + "1" + "}" * 200, "\x00"]
)
def test_no_text_under_the_name_of_the_state_is_a_traceback(tmp_path, text):
    checkpoints = save(tmp_path)
    (tmp_path / "step-00000002" / STATE).write_text(text)
    assert newest(checkpoints)[0] == 1


def test_a_state_without_its_seal_is_damage(tmp_path):
    checkpoints = save(tmp_path)
    file = tmp_path / "step-00000002" / STATE
    values = json.loads(file.read_text())
    del values["sha256"]
    file.write_text(json.dumps(values))
    assert newest(checkpoints)[0] == 1


def test_a_checkpoint_under_another_name_is_damage(tmp_path):
    checkpoints = save(tmp_path)
    (tmp_path / "step-00000002").rename(tmp_path / "step-00000007")
    step, told = newest(checkpoints)
    assert step == 1
    assert "its name says step 7, state.json 2" in told[0]


def test_files_swapped_between_checkpoints_are_damage(tmp_path):
    class Rising(PretendPolicy):
        def trained(self):
            self.shift += 1
            return super().trained()

    checkpoints = save(tmp_path, policy=Rising())
    name = "trained.safetensors"
    (tmp_path / "step-00000001" / name).replace(tmp_path / "step-00000002" / name)
    with pytest.raises(TrainingError, match="no checkpoint to go on from"):
        newest(checkpoints)


def as_before(folder: Path) -> None:
    """The state as version 0.1 wrote it: sampled hashes, no seal, fewer fields."""
    values = json.loads((folder / STATE).read_text())
    del values["sha256"], values["state"]["usual_loss"], values["state"]["loss_is_far"]
    files = {name: sampled_sha256([folder / name]) for name in values["files"]}
    (folder / STATE).write_text(json.dumps(values | {"version": 1, "files": files}))


def test_a_checkpoint_of_before_opens_with_a_remark(tmp_path):
    checkpoints = save(tmp_path)
    folder = tmp_path / "step-00000002"
    as_before(folder)
    step, told = newest(checkpoints)
    assert step == 2
    assert told == [f"{folder} is from before 0.2: only samples of its files could be checked"]
    flip(folder / "trained.safetensors", -1 + (folder / "trained.safetensors").stat().st_size)
    assert newest(checkpoints)[0] == 1


@pytest.mark.parametrize("files", [{}, {"trained.safetensors": "x"}, [], None])
def test_files_that_are_not_listed_are_damage_of_old_checkpoints_too(tmp_path, files):
    checkpoints = save(tmp_path)
    as_before(tmp_path / "step-00000002")
    path = tmp_path / "step-00000002" / STATE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": files}))
    assert newest(checkpoints)[0] == 1


def test_safetensors_opens_what_was_written(tmp_path):
    from safetensors.numpy import load_file

    save(tmp_path, policy=Large())
    folder = tmp_path / "step-00000002"
    assert (load_file(folder / "trained.safetensors")["w"] == Large().trained()["w"]).all()
    state = load_file(folder / "optimiser.safetensors")["step"]
    assert (state.dtype, state.shape, int(state)) == (np.int64, (), 0)
    length = struct.unpack("<Q", (folder / "trained.safetensors").read_bytes()[:8])[0]
    assert (8 + length) % 64 == 0


BAD = float("nan")
SPARSE: dict[str, Any] = {"save_every": 1, "save_total_limit": 1, "steps_per_eval": 100}
"""A checkpoint at every step, one of which stays, and no validation but the last."""


def test_nothing_is_saved_while_steps_are_skipped_and_the_good_one_is_named(tmp_path):
    policy = PretendPolicy(norms=(1.0, 1.0, 1.0, BAD, BAD, BAD))
    with pytest.raises(TrainingError) as caught:
        run(tmp_path, policy, nonfinite_limit=3, **SPARSE)
    assert checkpoints_in(tmp_path / "run").steps() == [3]
    assert "the checkpoint of step 3 of 6 is whole" in str(caught.value)
    kinds = [(e["kind"], e["step"]) for e in log_of(tmp_path / "run")]
    assert ("checkpoint", 4) not in kinds
    assert ("warning", 4) in kinds


def test_saving_goes_on_after_a_skipped_step(tmp_path):
    policy = PretendPolicy(norms=(1.0, 1.0, BAD, 1.0, 1.0, 1.0))
    run(tmp_path, policy, save_every=1, save_total_limit=9, steps_per_eval=100)
    assert checkpoints_in(tmp_path / "run").steps() == [1, 2, 4, 5, 6]


def test_a_run_that_diverges_and_is_stopped_keeps_the_checkpoint_from_before(tmp_path):
    policy = PretendPolicy(norms=(1.0, 1.0, BAD, BAD))
    with pytest.raises(StoppedError, match="checkpoint of step 2 of 6 is whole"):
        run(tmp_path, policy, stop=stop_after(3), **SPARSE)
    assert checkpoints_in(tmp_path / "run").steps() == [2]


def stop_after(steps: int):
    asked = iter(range(100))
    return lambda: signal.SIGINT if next(asked) + 1 >= steps else None


def test_the_best_checkpoint_is_never_pruned(tmp_path):
    policy = PretendPolicy(rises=2)
    run(tmp_path, policy, save_every=1, steps_per_eval=1, save_total_limit=1)
    assert checkpoints_in(tmp_path / "run").steps() == [2, 6]


def test_a_loss_is_far_at_ten_times_its_history():
    state = RunState(first={"loss": 0.7})
    for _ in range(200):
        state.note_loss(0.01)
    assert state.usual_loss == pytest.approx(0.01)
    state.note_loss(FAR_LOSS * 0.7)
    assert not state.diverges
    before = state.usual_loss
    state.note_loss(FAR_LOSS * 0.7 + 0.01)
    assert state.diverges
    # one far loss counts as no more than the limit
    assert state.usual_loss - before <= 0.02 * FAR_LOSS * 0.7
    state.note_loss(0.01)
    assert not state.diverges


def test_a_loss_far_beyond_its_history_is_not_saved(tmp_path, monkeypatch):
    class Leaving(PretendPolicy):
        def score(self, batch, *arguments, **options):
            if len(self.rates) == 4:
                self.shift = -1e3
            return super().score(batch)

    run(tmp_path, Leaving(), save_every=1, save_total_limit=9, steps_per_eval=100)
    steps = checkpoints_in(tmp_path / "run").steps()
    assert {1, 2, 3, 4} <= {*steps}
    assert 5 not in steps


def test_a_stop_leaves_no_line_in_the_log_of_the_resumed_run(tmp_path):
    options: dict[str, Any] = {"save_every": 2, "steps_per_eval": 3, "steps_per_report": 3}
    run(tmp_path, PretendPolicy(), name="whole", **options)
    with pytest.raises(StoppedError):
        run(tmp_path, PretendPolicy(), stop=stop_after(5), **options)
    run(tmp_path, PretendPolicy(), resume=True, **options)
    assert log_of(tmp_path / "run") == log_of(tmp_path / "whole")
