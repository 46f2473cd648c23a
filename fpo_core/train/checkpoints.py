"""Checkpoints on disk: step-numbered folders, written whole or not at all.

docs/checkpoint_format.md specifies the format.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fpo_core import __version__
from fpo_core.backend.policy import Policy, PolicyInfo
from fpo_core.config import TrainConfig
from fpo_core.errors import TrainingError
from fpo_core.io.atomic import remove_folder, write_folder, write_json
from fpo_core.io.hashing import sampled_sha256
from fpo_core.train.state import RunState

FORMAT, VERSION = "fpo-checkpoint", 1
STATE_FILE = "state.json"
TRAINED_FILE = "trained.safetensors"
OPTIMISER_FILE = "optimiser.safetensors"
_NAME = re.compile(r"step-(\d{8,})$")
_T = TypeVar("_T")


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
        policy.load_trained(_arrays(self.folder / TRAINED_FILE))
        if self.origin.config["optimizer"] == config.optimizer:
            policy.load_optimiser_state(_arrays(self.folder / OPTIMISER_FILE))


@dataclass(frozen=True)
class Checkpoints:
    """The folder that holds a run's checkpoints; the newest `keep` stay."""

    folder: Path
    keep: int = 1

    def steps(self) -> list[int]:
        """Steps of the checkpoints, ascending."""
        names = (_NAME.match(path.name) for path in self.folder.glob("step-*"))
        return sorted(int(name[1]) for name in names if name)

    def save(self, policy: Policy, state: RunState, origin: Origin, log_bytes: int) -> None:
        """Write a checkpoint, then drop all but the newest; WriteError where the disk is full."""
        arrays = {TRAINED_FILE: policy.trained(), OPTIMISER_FILE: policy.optimiser_state()}

        def write(folder: Path) -> None:
            for name, tensors in arrays.items():
                save_file(tensors, folder / name)
            meta = {
                "format": FORMAT,
                "version": VERSION,
                "files": {name: sampled_sha256([folder / name]) for name in arrays},
                "log_bytes": log_bytes,
                **vars(origin),
                "state": state.to_mapping(),
            }
            write_json(folder / STATE_FILE, meta)

        write_folder(self._path(state.step), write)
        self.prune(state.step)

    def prune(self, step: int) -> None:
        """Drop all but the newest up to a step, and those beyond it."""
        steps = self.steps()
        # Beyond it are damaged ones, where an earlier one was resumed: those steps come again.
        stay = [earlier for earlier in steps if earlier <= step][-self.keep :]
        for old in set(steps) - set(stay):
            remove_folder(self._path(old))

    def newest(self, warn: Callable[[str], None]) -> Checkpoint:
        """The newest checkpoint that is whole; damaged ones are named to `warn` and left out.

        Raises TrainingError where there is none.
        """
        for step in reversed(self.steps()):
            try:
                return _open(self._path(step))
            except _DamagedError as error:
                warn(f"{self._path(step)} is damaged ({error}): an earlier checkpoint is taken")
        raise TrainingError(
            f"there is no checkpoint to go on from in {self.folder}: leave resume out to begin, "
            "or give the output folder of the run"
        )

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"


class _DamagedError(Exception):
    """Why a checkpoint cannot be read."""


def _open(folder: Path) -> Checkpoint:
    # The format is checked first: files of a later version may be hashed in another way.
    meta = _reading(lambda: json.loads((folder / STATE_FILE).read_text(encoding="utf-8")))
    version = _reading(lambda: (meta["format"], meta["version"]))
    if version != (FORMAT, VERSION):
        raise TrainingError(
            f"{folder} says format {version[0]!r} version {version[1]!r}, expected {FORMAT!r} "
            f"version {VERSION}: go on with the release of fpo-mlx that made it"
        )
    for name, expected in _reading(lambda: dict(meta["files"])).items():
        if _reading(lambda name=name: sampled_sha256([folder / name])) != expected:
            raise _DamagedError(f"{name} is not what was written")
    return _reading(
        lambda: Checkpoint(
            folder,
            RunState.from_mapping(meta["state"]),
            Origin(meta["config"], meta["fingerprints"], meta["made_with"]),
            int(meta["log_bytes"]),
        )
    )


def _reading(read: Callable[[], _T]) -> _T:
    try:
        return read()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _DamagedError(" ".join(str(error).split()) or type(error).__name__) from None


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise TrainingError(
            f"{path} cannot be read ({error}): remove the folder {path.parent}, and resume takes "
            "the checkpoint before it"
        ) from None
