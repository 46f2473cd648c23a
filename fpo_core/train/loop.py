"""The training loop."""

import dataclasses
import math
import statistics
import time
from dataclasses import dataclass, field

import numpy as np

from fpo_core.config import TrainConfig
from fpo_core.errors import TrainingError
from fpo_core.events import Event, Sink
from fpo_core.metrics import WEAK_CONSTRAINT, preference_metrics
from fpo_core.objectives import OBJECTIVES
from fpo_core.policy import Policy
from fpo_core.scores import Scores, join
from fpo_core.train.output import RunFolder, RunState
from fpo_core.train.run_data import RunData
from fpo_core.train.schedule import RowPlan, learning_rate, warmup_steps
from fpo_core.train.step0 import check_step0
from fpo_core.train.validate import validate


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    state: RunState
    steps: int
    first: dict[str, float]
    """Metrics of the first step."""
    last: dict[str, float]
    """Metrics of the last report."""
    evals: list[tuple[int, dict[str, float]]]
    """Validation metrics by step, step 0 among them."""
    seconds: float
    constraint_ratio: float | None
    """Median after the warm-up; None where the objective constrains nothing."""


def train(
    policy: Policy, data: RunData, config: TrainConfig, folder: RunFolder, emit: Sink
) -> TrainResult:
    """Run phase 2 from a fresh policy to the end; results and checkpoints lie in `folder`.

    An objective on the KL needs `hold_reference` before.
    Raises StoreError where the stored reference does not fit the policy, TrainingError where
    losses or gradients stay non-finite.
    """
    return _Run(policy, data, config, folder, emit).run()


class _Run:
    def __init__(
        self, policy: Policy, data: RunData, config: TrainConfig, folder: RunFolder, emit: Sink
    ) -> None:
        self.policy, self.data, self.config = policy, data, config
        self.folder, self.emit = folder, emit
        self.plan = RowPlan.of(data.train.lengths(), config)
        self.eval_every = config.steps_per_eval or max(1, self.plan.steps // 10)
        self.save_every = config.save_every or self.eval_every
        self.state = RunState()
        self.window = _Window()
        self.evals: list[tuple[int, dict[str, float]]] = []
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.ratios: list[float] = []
        self.nonfinite_in_a_row = 0

    def run(self) -> TrainResult:
        start = time.monotonic()
        check_step0(self.policy, self.data, self.config, self.emit)
        self.policy.prepare_training(self.config)
        self._validate()
        for step in range(1, self.plan.steps + 1):
            self._step(step)
            ended = step == self.plan.steps
            if ended or step % self.config.steps_per_report == 0 or step == 1:
                self._report()
            if ended or step % self.eval_every == 0:
                self._validate()
            if ended or step % self.save_every == 0:
                self._save()
        self.folder.save_result(self.policy)
        ratio = statistics.median(self.ratios) if self.ratios else None
        self._warn_of_weak_constraint(ratio)
        seconds = time.monotonic() - start
        self.emit(Event("done", self.state.step, {"seconds": seconds}))
        return TrainResult(
            self.state, self.plan.steps, self.first, self.last, self.evals, seconds, ratio
        )

    def _step(self, step: int) -> None:
        """One optimiser step over a window of batches; skipped where anything is not finite."""
        batches = self.plan.batches(step)
        pairs = sum(map(len, batches))
        parts: list[Scores] = []
        logps: list[np.ndarray] = []
        tokens = 0
        for rows in batches:
            batch, reference = self.data.batch(self.data.train, rows)
            scores = self.policy.accumulate(batch, reference, self.config, 1 / pairs)
            parts.append(scores.without_pooled())
            logps.append(np.asarray(reference.logps).reshape(2, -1))
            tokens += batch.num_tokens
        rate = learning_rate(step, self.plan.steps, self.config)
        values = preference_metrics(
            join(parts), np.concatenate(logps, axis=1).reshape(-1), self.config
        )
        if math.isfinite(values["loss"]):
            norm = self.policy.apply_gradients(rate, self.config.max_grad_norm)
        else:
            norm = math.nan
            self.policy.drop_gradients()
        self.state = dataclasses.replace(
            self.state, step=step, num_tokens=self.state.num_tokens + tokens
        )
        if not math.isfinite(norm):
            self._skip(values["loss"], norm)
            return
        self.nonfinite_in_a_row = 0
        values |= {"grad_norm": norm, "learning_rate": rate}
        self.window.add(values, tokens)
        if step > warmup_steps(self.plan.steps, self.config) and "fpo/constraint_ratio" in values:
            self.ratios.append(values["fpo/constraint_ratio"])

    def _skip(self, loss: float, norm: float) -> None:
        self.nonfinite_in_a_row += 1
        self.state = dataclasses.replace(self.state, skipped=self.state.skipped + 1)
        self.emit(Event("skipped", self.state.step, {"loss": str(loss), "grad_norm": str(norm)}))
        if self.nonfinite_in_a_row >= self.config.nonfinite_limit:
            raise TrainingError(
                f"loss or gradient was not finite {self.nonfinite_in_a_row} steps in a row, up to "
                f"step {self.state.step}: lower --learning-rate or use --dtype float32; the last "
                f"checkpoint lies in {self.folder.path / 'checkpoints'}"
            )

    def _report(self) -> None:
        values = self.window.means() | {
            "epoch": self.plan.epoch(self.state.step),
            "num_tokens": self.state.num_tokens,
            "skipped": self.state.skipped,
            "peak_memory": self.policy.peak_memory(),
            "steps": self.plan.steps,
        }
        self.window = _Window()
        self.emit(Event("train", self.state.step, values))
        if "loss" in values:
            self.last = values
            self.first = self.first or values

    def _validate(self) -> None:
        values = validate(
            self.policy,
            self.data,
            self.config,
            pairs=self.config.val_pairs,
            tokens_per_batch=self.config.tokens_per_batch,
        )
        if not values:
            return
        self.evals.append((self.state.step, values))
        self.emit(Event("eval", self.state.step, values))
        loss, best = values["eval_loss"], self.state.best_loss
        if self.state.step and math.isfinite(loss) and (best is None or loss < best):
            self.state = dataclasses.replace(self.state, best_loss=loss, best_step=self.state.step)
            self.folder.save_best(self.policy)

    def _save(self) -> None:
        self.folder.save_checkpoint(self.policy, self.state)
        self.emit(Event("checkpoint", self.state.step))

    def _warn_of_weak_constraint(self, ratio: float | None) -> None:
        if ratio is not None and ratio < WEAK_CONSTRAINT:
            text = (
                f"the constraint hardly took part (median constraint ratio {ratio:.2g}): raise "
                f"{'--beta' if OBJECTIVES[self.config.objective].symmetric else '--alpha'}"
            )
            self.emit(Event("warning", self.state.step, {"message": text}))


@dataclass
class _Window:
    """Means over the steps since the last report."""

    values: list[dict[str, float]] = field(default_factory=list)
    tokens: int = 0
    start: float = field(default_factory=time.monotonic)

    def add(self, values: dict[str, float], tokens: int) -> None:
        self.values.append(values)
        self.tokens += tokens

    def means(self) -> dict[str, float]:
        if not self.values:
            return {}
        names = self.values[0]
        means = {name: float(np.mean([v[name] for v in self.values])) for name in names}
        elapsed = max(time.monotonic() - self.start, 1e-9)
        return means | {
            "learning_rate": self.values[-1]["learning_rate"],
            "tokens_per_second": self.tokens / elapsed,
            "seconds_per_step": elapsed / len(self.values),
        }
