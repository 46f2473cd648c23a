"""What a run leaves on disk: a valid file at every checkpoint, and what it goes on from.

sae.safetensors            folded, with the threshold so far
sae-run/log.jsonl          progress, one JSON object a line
sae-run/buffer-N.safetensors   the buffer as filled for the N-th time
sae-run/state/             parameters, moments and position; replaced whole
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpo_core.errors import ConfigError, TrainingError
from fpo_core.io.atomic import remove_folder, sync, write_atomically, write_folder, write_json
from fpo_core.io.digests import damages, seal_holds, sealed
from fpo_core.io.ownership import check_foreign, check_inputs
from fpo_core.io.reader import SafetensorsFile, open_safetensors
from fpo_core.io.regular import read_json_object
from fpo_core.io.writer import write_arrays
from fpo_core.sae.hook import Hook
from fpo_core.sae.sae import is_sae_file
from fpo_core.sae_training.learner import Learner
from fpo_core.sae_training.shuffle_buffer import ShuffleBuffer

FORMAT, VERSION = "fpo-sae-run", 1
_STATE, _ORDER = "state.json", "order.safetensors"


@dataclass(frozen=True)
class SaeRunFiles:
    """The files of a run that writes `output`, of several layers one each."""

    output: Path
    hooks: tuple[Hook, ...]

    @property
    def folder(self) -> Path:
        """The log, and what a stopped run goes on from."""
        return self.output.with_name(f"{self.output.stem}-run")

    @property
    def log(self) -> Path:
        """Progress, one JSON object a line."""
        return self.folder / "log.jsonl"

    @property
    def results(self) -> list[Path]:
        """The file of each autoencoder."""
        if len(self.hooks) == 1:
            return [self.output]
        name = self.output.stem + "-{}" + self.output.suffix
        return [self.output.with_name(name.format(hook.layer)) for hook in self.hooks]

    @property
    def _state(self) -> Path:
        return self.folder / "state"

    def check(self, inputs: Mapping[str, str | None], *, resume: bool) -> None:
        """Raise ConfigError where a run would write over what it reads, or over what isn't ours."""
        if self.output.suffix != ".safetensors":
            raise ConfigError(
                f"output is {self.output}, expected a file that ends in .safetensors: rename it"
            )
        check_inputs([*self.results, self.folder], inputs)
        check_foreign(self.results, is_sae_file)
        check_foreign([self.folder], lambda path: path.is_dir() and self._is_run(path))
        if resume and not self._state.is_dir():
            raise TrainingError(
                f"there is nothing to go on from in {self.folder}: leave resume out to begin"
            )

    @staticmethod
    def _is_run(path: Path) -> bool:
        names = {entry.name for entry in path.iterdir()}
        return not names or bool(names & {"log.jsonl", "state", ".fpo.lock"})

    def begin(self) -> None:
        """Forget an earlier run."""
        if self._state.exists():
            remove_folder(self._state)
        self.log.unlink(missing_ok=True)
        self._drop_buffers(None)

    def end(self) -> None:
        """Drop what only an unfinished run needs."""
        if self._state.exists():
            remove_folder(self._state)
        self._drop_buffers(None)

    def save(
        self, learners: Sequence[Learner], buffer: ShuffleBuffer, origin: Mapping[str, Any]
    ) -> None:
        """Write a checkpoint, in the place of the one before."""
        path = self._buffer(buffer.fills)
        if not path.exists():
            # Once per filling: between two of them only the position changes.
            arrays = {f"hook{i:03d}": array for i, array in enumerate(buffer.arrays)}
            write_atomically(path, lambda temporary: write_arrays(temporary, arrays))
        size = 0
        if self.log.exists():
            sync(self.log)
            size = self.log.stat().st_size

        def write(folder: Path) -> None:
            files = {_ORDER: write_arrays(folder / _ORDER, {"order": buffer.order})}
            for i, learner in enumerate(learners):
                name = f"hook{i:03d}.safetensors"
                files[name] = write_arrays(folder / name, learner.state())
            meta = {
                "format": FORMAT,
                "version": VERSION,
                "step": learners[0].step,
                "log_bytes": size,
                "buffer": buffer.numbers(),
                "files": files,
                **origin,
            }
            write_json(folder / _STATE, sealed(meta))

        write_folder(self._state, write)
        self._drop_buffers(buffer.fills)

    def open(self, origin: Mapping[str, Any]) -> "SavedRun":
        """The checkpoint, and the log cut to it.

        Raises TrainingError where it is damaged, ConfigError where it is another run's.
        """
        meta = read_json_object(self._state / _STATE, self._damaged)
        if meta.get("format") != FORMAT or not seal_holds(meta):
            raise self._damaged(f"{self._state / _STATE} is not what was written")
        for damage in damages(self._state, meta["files"]):
            raise self._damaged(f"{self._state}: {damage}")
        _check_same(meta, origin)
        if self.log.exists() and self.log.stat().st_size > meta["log_bytes"]:
            os.truncate(self.log, meta["log_bytes"])
        return SavedRun(
            meta["step"],
            meta["buffer"],
            self._file(self._buffer(meta["buffer"]["fills"])),
            self._file(self._state / _ORDER),
            [self._file(self._state / f"hook{i:03d}.safetensors") for i in range(len(self.hooks))],
        )

    def _file(self, path: Path) -> SafetensorsFile:
        return open_safetensors(path, self._damaged)

    def _damaged(self, text: str) -> TrainingError:
        return TrainingError(f"{text}: leave resume out to begin again")

    def _buffer(self, fills: int) -> Path:
        return self.folder / f"buffer-{fills}.safetensors"

    def _drop_buffers(self, current: int | None) -> None:
        for path in self.folder.glob("buffer-*.safetensors"):
            if current is None or path != self._buffer(current):
                path.unlink()


@dataclass(frozen=True)
class SavedRun:
    """A checkpoint on disk."""

    step: int
    numbers: Mapping[str, Any]
    buffer: SafetensorsFile
    order: SafetensorsFile
    learners: Sequence[SafetensorsFile]

    def restore_buffer(self, buffer: ShuffleBuffer) -> None:
        """Give a buffer its contents and its place."""
        arrays = [self.buffer.stored(name) for name in sorted(self.buffer.entries)]
        centres = [file.stored("centre") for file in self.learners]
        buffer.restore(self.numbers, arrays, self.order.stored("order"), centres)

    def restore_learner(self, number: int, learner: Learner) -> None:
        """Give a learner its parameters and moments."""
        file = self.learners[number]
        learner.load_state({name: file.stored(name) for name in file.entries}, self.step)


def _check_same(meta: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    """Raise ConfigError where anything that the result depends on differs."""
    was, now = _flat(meta), _flat(origin)
    changed = [f"{k} was {was.get(k)}, is {v}" for k, v in now.items() if was.get(k) != v]
    if changed:
        raise ConfigError(
            f"resume is set, but this is not the run that was stopped ({'; '.join(changed)}): use "
            "its settings and data, or leave resume out"
        )


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    inner = values.get("settings") or {}
    return {**{k: v for k, v in values.items() if isinstance(v, str | int)}, **inner}
