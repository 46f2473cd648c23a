"""The training loop, driven by a policy that only pretends to learn."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fpo_core.config import TrainConfig
from fpo_core.data.rows import TokenisedPairs
from fpo_core.errors import StoreError, TrainingError
from fpo_core.events import Event
from fpo_core.model_folder import ModelFolder
from fpo_core.policy import PolicyInfo
from fpo_core.scores import Scores
from fpo_core.store import ReferenceStore, StoreKey, StoreWriter
from fpo_core.train import RunData, train
from fpo_core.train.output import RunFolder
from fpo_core.train.schedule import RowPlan, learning_rate, warmup_steps

ROWS = 12


def config(output: Path, **changes: Any) -> TrainConfig:
    given: dict[str, Any] = {"model": "m", "data": "d", "output": str(output), "alpha": 0.0}
    return TrainConfig(**(given | {"batch_size": 2, "iters": 6, "learning_rate": 1.0} | changes))


class PretendPolicy:
    """Says −1 nat per token, plus what it has been told to add to the chosen side."""

    info = PolicyInfo("pretend", "cpu", "float32", None, 2, 4, 8, 8)

    def __init__(self, shift: float = 0.0, norms: tuple[float, ...] = ()) -> None:
        self.shift, self.norms = shift, list(norms)
        self.rates: list[float] = []
        self.weights: list[float] = []

    def score(self, batch: Any, *_: Any, **__: Any) -> Scores:
        lengths = batch.completion_lengths().astype(np.float64)
        gain = np.repeat([self.shift, 0.0], batch.pairs)
        return Scores(logps=lengths * (gain - 1.0), lengths=lengths)

    def accumulate(self, batch: Any, reference: Any, objective: Any, weight: float) -> Scores:
        self.weights.append(weight)
        return self.score(batch)

    def apply_gradients(self, learning_rate: float, max_norm: float) -> float:
        norm = self.norms.pop(0) if self.norms else 1.0
        if math.isfinite(norm):
            self.rates.append(learning_rate)
            self.shift += 0.1
        return norm

    def prepare_training(self, config: Any) -> None: ...

    def drop_gradients(self) -> None: ...

    def trained(self) -> dict[str, np.ndarray]:
        shape = np.full((1, 4), self.shift, np.float32)
        return {"0.self_attn.q_proj.lora_A": shape, "0.self_attn.q_proj.lora_B": shape.T.copy()}

    def optimiser_state(self) -> dict[str, np.ndarray]:
        return {"step": np.array(len(self.rates))}

    def peak_memory(self) -> int:
        return 1


def run(
    tmp_path: Path, policy: PretendPolicy, **changes: Any
) -> tuple[Any, list[Event], TrainConfig]:
    settings = config(tmp_path / "run", **changes)
    pairs = TokenisedPairs.from_lists([([1, i], [5, 6, 7], [8, 9]) for i in range(ROWS)])
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
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"num_hidden_layers": 2, "model_type": "llama"}')
    data = RunData(pairs, pairs[:4], ReferenceStore.open(tmp_path / "store"), None)
    folder = RunFolder(tmp_path / "run", ModelFolder(model, "m"), settings)
    folder.begin()
    events: list[Event] = []
    return train(policy, data, settings, folder, events.append), events, settings  # pyright: ignore


def test_a_run_learns_saves_and_reports(tmp_path: Path) -> None:
    result, events, _ = run(tmp_path, PretendPolicy())
    assert result.first["loss"] == pytest.approx(math.log(2))
    # After 6 steps the chosen side is 0.6 nats a token up: u = β · 0.6.
    assert result.evals[-1][1]["eval_loss"] == pytest.approx(-math.log(1 / (1 + math.exp(-0.06))))
    assert result.state.best_step == 6
    for name in ("adapter_model.safetensors", "best/adapters.safetensors"):
        assert (tmp_path / "run" / name).is_file()
    assert (tmp_path / "run/checkpoints/last/state.json").is_file()
    assert [event.kind for event in events].count("eval") == 7


def test_accumulation_splits_the_same_windows(tmp_path: Path) -> None:
    lengths = np.arange(5, 5 + ROWS)
    large = RowPlan.of(lengths, config(tmp_path, batch_size=4))
    small = RowPlan.of(lengths, config(tmp_path, batch_size=2, grad_accumulation_steps=2))
    for step in range(1, 7):
        parts = small.batches(step)
        assert [len(part) for part in parts] == [2, 2]
        assert np.concatenate(parts).tolist() == np.concatenate(large.batches(step)).tolist()


def test_weights_of_a_window_sum_to_one_per_pair(tmp_path: Path) -> None:
    policy = PretendPolicy()
    run(tmp_path, policy, grad_accumulation_steps=2, iters=1)
    assert policy.weights == [1 / 4, 1 / 4]


def test_a_foreign_store_is_refused_before_step_1_with_its_rows(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"12 of 12 sampled pairs \(data rows 1, 2, 3"):
        run(tmp_path, PretendPolicy(shift=0.5))


def test_a_nonfinite_step_is_skipped_and_counted(tmp_path: Path) -> None:
    policy = PretendPolicy(norms=(1.0, math.nan, 1.0))
    result, events, _ = run(tmp_path, policy)
    assert result.state.skipped == 1
    assert len(policy.rates) == 5
    assert [event.step for event in events if event.kind == "skipped"] == [2]


def test_repeated_nonfinite_steps_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="3 steps in a row"):
        run(tmp_path, PretendPolicy(norms=(math.inf,) * 3), nonfinite_limit=3)


def test_schedules(tmp_path: Path) -> None:
    rates = {
        name: [
            learning_rate(s, 10, config(tmp_path, schedule=name, warmup=2)) for s in (1, 2, 3, 7)
        ]
        for name in ("constant", "cosine", "linear")
    }
    # Two steps of warm-up, then 8 steps: step 3 is the peak, step 7 half way.
    assert rates["constant"] == pytest.approx([0.5, 1.0, 1.0, 1.0])
    assert rates["cosine"] == pytest.approx([0.5, 1.0, 1.0, 0.5])
    assert rates["linear"] == pytest.approx([0.5, 1.0, 1.0, 0.5])
    assert warmup_steps(10, config(tmp_path, warmup=0.25)) == 2
