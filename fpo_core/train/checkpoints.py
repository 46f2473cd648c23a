"""Checkpoints on disk: step-numbered folders, written whole or not at all.

docs/checkpoint_format.md specifies the format.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fpo_core import __version__
from fpo_core.backend.policy import Policy, PolicyInfo
from fpo_core.backend.process_group import ALONE, Group, only_first
from fpo_core.backend.sharded_files import prepared, takes_part
from fpo_core.config import TrainConfig
from fpo_core.errors import TrainingError
from fpo_core.io.atomic import remove_folder, write_folder, write_json
from fpo_core.io.digests import damages, sampled_sha256, seal_holds, sealed
from fpo_core.io.reader import open_safetensors
from fpo_core.io.regular import read_json_object
from fpo_core.train.pool import Pool
from fpo_core.train.state import RunState

FORMAT, VERSION = "fpo-checkpoint", 2
STATE_FILE = "state.json"
TRAINED_FILE = "trained.safetensors"
OPTIMISER_FILE = "optimiser.safetensors"
POOL_FILE = "pool.safetensors"
"""Fresh pairs of steps to come; of an online run alone."""
_SAMPLED = 1
"""The version that hashed samples of the tensor files, and nothing of state.json."""
_NAME = re.compile(r"step-(\d{8,})$")


@dataclass(frozen=True)
class Origin:
    """The run that wrote a checkpoint, for the check before another resumes it."""

    config: dict[str, Any]
    """Every setting of the run."""
    fingerprints: dict[str, str | None]
    """Contents of model, adapter, autoencoder and pairs; see `RunData.fingerprints`."""
    made_with: dict[str, Any]
    """Version, backend, device, dtype, and how many processes shared the run."""

    @staticmethod
    def made_by(info: PolicyInfo, processes: int) -> dict[str, Any]:
        """`made_with` of a policy in a group of so many processes."""
        names = ("backend", "device", "dtype", "quantisation")
        values = {name: getattr(info, name) for name in names}
        return {"fpo": __version__, **values, "processes": processes}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are all as they were written."""

    folder: Path
    state: RunState
    origin: Origin
    log_bytes: int
    """Length of the log at that step."""

    def load_into(self, policy: Policy, config: TrainConfig) -> None:
        """Give a policy, prepared for training, the weights and the optimizer's state.

        Another optimizer, where `allow_change` names it, starts afresh.
        """
        # Of a sharded policy each process reads its rows alone.
        read = _file_arrays if policy.info.sharded else _arrays
        policy.load_trained(read(self.folder / TRAINED_FILE))
        if self.origin.config["optimizer"] == config.optimizer:
            policy.load_optimizer_state(read(self.folder / OPTIMISER_FILE))

    def pool(self, d_sae: int | None) -> Pool | None:
        """The fresh pairs of an online run; None of any other."""
        path = self.folder / POOL_FILE
        return Pool.from_arrays(_arrays(path), d_sae) if path.exists() else None


@dataclass(frozen=True)
class Checkpoints:
    """A run's checkpoints; the newest `keep` stay, and those that it may have to go back to."""

    folder: Path
    keep: int = 1

    def steps(self) -> list[int]:
        """Steps of the checkpoints, ascending."""
        names = (_NAME.match(path.name) for path in self.folder.glob("step-*"))
        return sorted(int(name[1]) for name in names if name)

    def save(
        self,
        policy: Policy,
        state: RunState,
        origin: Origin,
        log_bytes: int,
        pool: Pool | None = None,
        group: Group = ALONE,
    ) -> None:
        """Write a checkpoint, then drop all but the newest; WriteError where the disk is full.

        Every process of a group calls it, and the first one writes, of a sharded policy all.
        """
        arrays: dict[str, Any] = {}
        if takes_part(group, policy):
            arrays = {TRAINED_FILE: policy.trained(), OPTIMISER_FILE: policy.optimizer_state()}
            arrays |= {} if pool is None else {POOL_FILE: pool.to_arrays()}

        with prepared(group, self._path(state.step), arrays) as files:

            def write(folder: Path) -> None:
                meta = {
                    "format": FORMAT,
                    "version": VERSION,
                    "files": files.place(folder),
                    "log_bytes": log_bytes,
                    **vars(origin),
                    "state": state.to_mapping(),
                }
                write_json(folder / STATE_FILE, sealed(meta))

            def save() -> None:
                write_folder(self._path(state.step), write)
                self.prune(state)

            only_first(group, save)

    def prune(self, state: RunState) -> None:
        """Drop all but the newest up to a state, and those that a run may have to go back to."""
        steps = self.steps()
        # Beyond it are damaged ones, where an earlier one was resumed: those steps come again.
        stay = {*[earlier for earlier in steps if earlier <= state.step][-self.keep :]}
        # What comes after the best may be worse in a way that shows later: a way back remains.
        stay |= {state.best_step, state.within} & {*steps}
        for old in set(steps) - stay:
            remove_folder(self._path(old))

    def newest(self, warn: Callable[[str], None], most: int | None = None) -> Checkpoint:
        """The newest whole checkpoint, up to the step `most`; `warn` hears of damaged ones.

        Raises TrainingError where there is none.
        """
        for step in reversed([step for step in self.steps() if most is None or step <= most]):
            try:
                return _open(self._path(step), step, warn)
            except _DamagedError as error:
                warn(f"{self._path(step)} is damaged ({error}): an earlier checkpoint is taken")
        raise TrainingError(
            f"there is no checkpoint to go on from in {self.folder}: leave resume out to begin, "
            "or give the output folder of the run"
        )

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"


class _DamagedError(TrainingError):
    """Why a checkpoint cannot be read."""


def _open(folder: Path, step: int, warn: Callable[[str], None]) -> Checkpoint:
    meta = read_json_object(folder / STATE_FILE, lambda text: _DamagedError(f"{text}"))
    version = meta.get("version")
    if meta.get("format") != FORMAT or type(version) is not int or seal_holds(meta) is False:
        raise _DamagedError(f"{STATE_FILE} is not what was written")
    # Before anything else: files of a later version may be hashed in another way.
    if version not in (VERSION, _SAMPLED):
        raise TrainingError(
            f"{folder} says version {version}, expected {FORMAT} version {VERSION}: go on with the "
            "release of fpo-mlx that made it"
        )
    _check_whole(folder, meta)
    try:
        found = Checkpoint(
            folder,
            RunState.from_mapping(meta["state"]),
            Origin(meta["config"], meta["fingerprints"], meta["made_with"]),
            int(meta["log_bytes"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _DamagedError(f"{STATE_FILE} is incomplete: {error!r}") from None
    if found.state.step != step:
        raise _DamagedError(f"its name says step {step}, {STATE_FILE} {found.state.step!r}")
    if version == _SAMPLED:
        warn(f"{folder} is from before 0.2: only samples of its files could be checked")
    return found


def _check_whole(folder: Path, meta: Mapping[str, Any]) -> None:
    """Raise _DamagedError unless the state and both tensor files are what was written."""
    sampled = meta["version"] == _SAMPLED
    if seal_holds(meta) is not (None if sampled else True):
        raise _DamagedError(f"{STATE_FILE} is not what was written")
    files = meta.get("files")
    if not isinstance(files, dict) or files.keys() - {POOL_FILE} != {TRAINED_FILE, OPTIMISER_FILE}:
        raise _DamagedError(f"{STATE_FILE} does not list {TRAINED_FILE} and {OPTIMISER_FILE}")
    if not sampled:
        for damage in damages(folder, files):
            raise _DamagedError(str(damage))
        return
    for name, expected in files.items():
        try:
            same = sampled_sha256([folder / name]) == expected
        except OSError as error:
            raise _DamagedError(f"{name} cannot be read ({error.strerror})") from None
        if not same:
            raise _DamagedError(f"{name} is not what was written")


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from None


def _file_arrays(path: Path) -> dict[str, Any]:
    """The arrays, read where they are used."""
    file = open_safetensors(path, lambda text: _unreadable(path, text))
    return {name: file.array(name) for name in file.entries}


def _unreadable(path: Path, reason: str) -> TrainingError:
    return TrainingError(
        f"{path} cannot be read ({reason}): remove the folder {path.parent}, and resume takes "
        "the checkpoint before it"
    )
