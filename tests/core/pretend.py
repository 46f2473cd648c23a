"""A policy that only pretends to learn, and runs of the training loop with it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from fpo_core.backend.policy import PolicyInfo
from fpo_core.backend.process_group import ALONE, Group, only_first
from fpo_core.config import TrainConfig
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.events import Event, JsonlLog, fan_out, silent
from fpo_core.loss.scores import Scores
from fpo_core.models.folder import ModelFolder
from fpo_core.reference.key import StoreKey
from fpo_core.reference.reader import ReferenceStore
from fpo_core.reference.writer import StoreWriter
from fpo_core.train.loop import train
from fpo_core.train.paired_data import RunData
from fpo_core.train.run_folder import RunFolder

ROWS = 12


def config(output: Path, **changes: Any) -> TrainConfig:
    given: dict[str, Any] = {"model": "m", "data": "d", "output": str(output), "alpha": 0.0}
    return TrainConfig(**(given | {"batch_size": 2, "iters": 6, "learning_rate": 1.0} | changes))


class PretendPolicy:
    """Says −1 nat per token, plus what it has been told to add to the chosen side."""

    info = PolicyInfo("pretend", "cpu", "float32", None, 2, 4, 8, 8)

    def __init__(
        self, shift: float = 0.0, norms: tuple[float, ...] = (), rises: int | None = None
    ) -> None:
        """What it adds grows at each step, or falls again after `rises` of them."""
        self.shift, self.norms, self.rises = shift, list(norms), rises
        self.rates: list[float] = []
        self.weights: list[float] = []

    def score(self, batch: Any, *_: Any, **__: Any) -> Scores:
        lengths = batch.completion_lengths().astype(np.float64)
        gain = np.repeat([self.shift, 0.0], batch.pairs)
        return Scores(logps=lengths * (gain - 1.0), lengths=lengths)

    def accumulate(self, batch: Any, reference: Any, objective: Any, weight: float) -> Scores:
        self.weights.append(weight)
        return self.score(batch)

    def accumulate_all(self, batches: Any, objective: Any, weight: float) -> list[Scores]:
        return [self.accumulate(batch, ref, objective, weight) for _, batch, ref, *_ in batches]

    def apply_gradients(self, learning_rate: float, max_norm: float) -> float:
        norm = self.norms.pop(0) if self.norms else 1.0
        if math.isfinite(norm):
            self.rates.append(learning_rate)
            falls = self.rises is not None and len(self.rates) > self.rises
            moved = self.shift + (-0.1 if falls else 0.1)
            self.shift = float(np.float32(moved))  # as a checkpoint keeps it
        return norm

    def prepare_training(self, config: Any, group: Any = None) -> None: ...

    def seed(self, number: int) -> None: ...

    def drop_gradients(self) -> None: ...

    def trained(self) -> dict[str, np.ndarray]:
        shape = np.full((1, 4), self.shift, np.float32)
        return {"0.self_attn.q_proj.lora_A": shape, "0.self_attn.q_proj.lora_B": shape.T.copy()}

    def optimizer_state(self) -> dict[str, np.ndarray]:
        return {"step": np.array(len(self.rates))}

    def load_trained(self, weights: dict[str, np.ndarray]) -> None:
        self.shift = float(weights["0.self_attn.q_proj.lora_A"][0, 0])

    def load_optimizer_state(self, state: dict[str, np.ndarray]) -> None:
        self.rates = [1.0] * int(state["step"])

    def peak_memory(self) -> int:
        return 1

    def reset_peak_memory(self) -> None:
        pass

    def memory_in_use(self) -> dict[str, int]:
        return {}


TIMES = {"tokens_per_second", "seconds_per_step", "peak_memory", "seconds"}
"""What may differ between the logs of equal runs."""


def log_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def data(tmp_path: Path, group: Group = ALONE) -> RunData:
    """Pairs and the store of a reference that says −1 nat per token."""
    pairs = TokenisedPairs.from_lists([([1, i], [5, 6, 7], [8, 9]) for i in range(ROWS)])
    if not ReferenceStore.exists(tmp_path / "store"):
        writer = StoreWriter(
            tmp_path / "store",
            StoreKey("m"),
            cap=4,
            dtype="float32",
            rows_per_shard=5,
            made_with={},
        )
        lengths = np.repeat([3.0, 2.0], ROWS)
        writer.add(pairs.keys(), Scores(logps=-lengths, lengths=lengths))
        writer.close()
    return RunData(pairs, pairs[:4], ReferenceStore.open(tmp_path / "store"), None, group=group)


def run(
    tmp_path: Path,
    policy: PretendPolicy,
    *,
    name: str = "run",
    emit: Any = None,
    stop: Any = lambda: None,
    group: Group = ALONE,
    **changes: Any,
) -> tuple[Any, list[Event], TrainConfig]:
    """A run into the folder `name`; with resume=True, from its newest checkpoint."""
    settings = config(tmp_path / name, **changes)
    model = tmp_path / "model"
    model.mkdir(exist_ok=True)
    if not group.rank:
        data(tmp_path)
    (model / "config.json").write_text('{"num_hidden_layers": 2, "model_type": "llama"}')
    folder = RunFolder(tmp_path / name, ModelFolder(model, "m"), settings, group)
    checkpoint = None
    if settings.resume:
        checkpoint = folder.checkpoints.newest(print)
    else:
        only_first(group, folder.begin)
    events: list[Event] = []
    log = silent if group.rank else JsonlLog(folder.log)
    sinks = [log, events.append, *([] if emit is None else [emit])]
    result = train(
        policy,  # pyright: ignore[reportArgumentType]
        data(tmp_path, group),
        settings,
        folder,
        fan_out(*sinks),
        checkpoint=checkpoint,
        stop=stop,
    )
    return result, events, settings
