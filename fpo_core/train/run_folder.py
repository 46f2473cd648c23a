"""What a run leaves in its output folder."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fpo_core.adapters.folders import save_trained
from fpo_core.adapters.writer import MLX_FILE, PEFT_FILE
from fpo_core.backend.policy import Policy
from fpo_core.backend.process_group import ALONE, Group, only_first
from fpo_core.backend.sharded_files import Prepared, gathered, prepared, takes_part
from fpo_core.config import TrainConfig
from fpo_core.io.atomic import (
    remove_folder,
    remove_leftovers,
    sync,
    write_folder,
    write_into_folder,
    write_json,
)
from fpo_core.io.ownership import check_foreign, check_inputs, marked
from fpo_core.loss.degrees import DEGREE_HEAD
from fpo_core.models.folder import ModelFolder, flatten_rope
from fpo_core.train.checkpoints import Checkpoint, Checkpoints, Origin
from fpo_core.train.pool import Pool
from fpo_core.train.state import RunState

LOG_FILE = "log.jsonl"
CONFIG_FILE = "fpo_config.json"
BEST, BEST_FILE = "best", "fpo_best.json"
MODEL_FILE = "model.safetensors"
CHECKPOINTS = "checkpoints"
_RESULT = ("adapter_config.json", PEFT_FILE, MLX_FILE, MODEL_FILE, "config.json")
_CARD = ("README.md", "curves.png", "report.html", "report.json")
"""Beside these, links are replaced, and a README.md of the user's stays."""


@dataclass(frozen=True)
class RunFolder:
    """The output folder: the trained result at its top, `best/`, `checkpoints/`, the log."""

    path: Path
    model: ModelFolder
    config: TrainConfig
    group: Group = ALONE
    """Its processes save together: the first one writes, of a sharded policy all."""

    @property
    def log(self) -> Path:
        """The metrics, one JSON object a line."""
        return self.path / LOG_FILE

    @property
    def checkpoints(self) -> Checkpoints:
        """What the run can go on from."""
        return checkpoints_in(self.path, self.config.save_total_limit)

    def begin(self) -> None:
        """Make the folder and write the settings; a log of an earlier run is replaced."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._remove_leftovers()
        self.log.unlink(missing_ok=True)
        write_json(self.path / CONFIG_FILE, self.config.to_mapping())

    def rewind(self, checkpoint: Checkpoint) -> None:
        """Take back what was written after the checkpoint; write the settings in use now."""
        self._remove_leftovers()
        self.checkpoints.prune(checkpoint.state)
        if self.log.exists() and self.log.stat().st_size > checkpoint.log_bytes:
            os.truncate(self.log, checkpoint.log_bytes)
        write_json(self.path / CONFIG_FILE, self.config.to_mapping())

    def _remove_leftovers(self) -> None:
        for folder in (self.path, self.checkpoints.folder):
            remove_leftovers(folder)

    def save_result(self, policy: Policy) -> None:
        """Write the trained adapter or model to the top of the folder."""
        with self._result(policy) as write:
            only_first(self.group, lambda: write_into_folder(self.path, write))

    def save_best(self, policy: Policy, state: RunState) -> None:
        """Write this as the best result so far, after its checkpoint: that can restore `best/`."""
        with self._result(policy) as write_result:

            def write(folder: Path) -> None:
                write_result(folder)
                metric = f"eval_{self.config.best_metric}"
                write_json(folder / BEST_FILE, {"step": state.best_step, metric: state.best_value})

            only_first(self.group, lambda: write_folder(self.path / BEST, write))

    @contextlib.contextmanager
    def _result(self, policy: Policy) -> Iterator[Callable[[Path], None]]:
        """What writes the adapter, or the whole model with its tokenizer, to a folder."""
        if self.config.fine_tune_type != "full":
            here = policy.trained() if takes_part(self.group, policy) else {}
            weights = gathered(self.group, here)
            yield lambda folder: self._write_adapter(weights, folder)
            return
        files = {MODEL_FILE: policy.model_shards()} if policy.info.sharded else {}
        with prepared(self.group, self.path / MODEL_FILE, files) as shards:
            yield lambda folder: self._write_model(policy, shards, folder)

    def _write_model(self, policy: Policy, shards: Prepared, folder: Path) -> None:
        policy.save_model(folder)
        shards.place(folder)
        flatten_rope(folder / "config.json")
        self.model.copy_companions(folder)

    def _write_adapter(self, weights: dict[str, np.ndarray], folder: Path) -> None:
        weights.pop(DEGREE_HEAD, None)  # of use in training alone
        save_trained(folder, weights, self.config, self.config.model, self.model)

    def best_step(self) -> int | None:
        """The step whose result lies in `best/`; None where there is no whole one."""
        try:
            return json.loads((self.path / BEST / BEST_FILE).read_text(encoding="utf-8"))["step"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def drop_best(self) -> None:
        """Remove a `best/` that the run knows nothing of."""
        if (self.path / BEST).exists():
            remove_folder(self.path / BEST)

    def save_checkpoint(
        self, policy: Policy, state: RunState, origin: Origin, pool: Pool | None = None
    ) -> None:
        """Write weights, optimiser, state and fresh pairs to a folder of `checkpoints/`."""
        size = 0
        if not self.group.rank and self.log.exists():
            # The checkpoint remembers the log's length, so these bytes must reach the disk first.
            sync(self.log)
            size = self.log.stat().st_size
        self.checkpoints.save(policy, state, origin, size, pool, self.group)


def check_output(config: TrainConfig) -> None:
    """Raise ConfigError where a run would write over what it reads, or over somebody else's files.

    Its own files are those beside its settings; `best/` has a mark of its own.
    """
    output = Path(config.output)
    read = ("model", "adapter", "data", "sae", "text", "prompts", "feature_weights")
    inputs = {name: getattr(config, name) for name in read}
    names = (LOG_FILE, CONFIG_FILE, CHECKPOINTS, BEST, *_RESULT)
    check_inputs([output / name for name in (*names, *_CARD)], inputs, folder=output)
    begun = (output / CONFIG_FILE).is_file()
    check_foreign((output / name for name in (LOG_FILE, *_RESULT)), lambda _: begun)
    check_foreign([output / CHECKPOINTS], Path.is_dir)
    check_foreign([output / BEST], marked(BEST_FILE))


def checkpoints_in(output: Path, keep: int = 1) -> Checkpoints:
    """The checkpoints of an output folder."""
    return Checkpoints(output / CHECKPOINTS, keep)


def is_finished(output: Path) -> bool:
    """Whether the log of an output folder ends with the end of the run."""
    try:
        lines = (output / LOG_FILE).read_text(encoding="utf-8").rstrip("\n").split("\n")
        return json.loads(lines[-1])["kind"] == "done"
    except (OSError, ValueError, IndexError, KeyError, TypeError):
        return False
