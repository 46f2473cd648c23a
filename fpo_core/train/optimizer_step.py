"""One optimizer step over a window of batches: by its accumulated gradient, or by two losses."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from fpo_core.backend.policy import Policy, SeededBatch
from fpo_core.backend.process_group import gather_scores, joined, shares
from fpo_core.config import TrainConfig
from fpo_core.data.batches import Batch
from fpo_core.data.token_store import Int64s
from fpo_core.loss.dense import ReferenceBatch
from fpo_core.loss.finite_difference import slope
from fpo_core.loss.metrics import pair_losses, preference_metrics
from fpo_core.loss.online import OnlineTerms
from fpo_core.loss.scores import Scores, join
from fpo_core.train.paired_data import RunData
from fpo_core.train.pool import Pool, online_terms
from fpo_core.train.schedule import RowPlan, learning_rate, step_seed
from fpo_core.train.state import Metrics


@dataclass(frozen=True)
class StepResult:
    """What came of a step."""

    metrics: Metrics
    """Means over the window's pairs, the gradient's norm and the learning rate among them."""
    tokens: int
    online_f: float | None = None
    """Mean log σ(u) of the pairs that the policy sampled, under SAIL's score term."""

    @property
    def applied(self) -> bool:
        """Whether the weights moved; they don't where a loss or gradient was not finite."""
        return math.isfinite(self.metrics["grad_norm"])


@dataclass(frozen=True)
class Stepper:
    """Takes the steps of a run, in any order: which rows and which dropout depend on the number."""

    policy: Policy
    data: RunData
    config: TrainConfig
    plan: RowPlan
    pool: Pool | None = None
    """Fresh pairs of the step, in an online run."""
    baseline: float = 0.0
    """See `OnlineTerms`."""

    def with_alpha(self, alpha: float | None) -> Self:
        """The same with an α in place of the settings' own; None changes nothing."""
        return self if alpha is None else replace(self, config=replace(self.config, alpha=alpha))

    def take(self, step: int) -> StepResult:
        """Take step 1..steps; the policy's weights stay as they are where it cannot be applied."""
        rows = joined(self.plan.batches(step))
        if self.pool is not None:
            rows = self.pool.rows(step, rows, len(self.data.train))
        rate = learning_rate(step, self.plan.steps, self.config)
        move = self._by_losses if self.config.zeroth_order else self._by_gradient
        metrics = move(step, rows, rate) | {"learning_rate": rate}
        return StepResult(metrics, self._num_tokens(rows), metrics.pop("online/f", None))

    def _by_gradient(self, step: int, rows: Int64s, rate: float) -> Metrics:
        # A seed of its own for every forward pass: a resumed run needs no generator's state.
        batches = (
            SeededBatch(
                step_seed(self.config.seed, step, number),
                batch,
                reference,
                self._online(batch.rows),
                counts,
            )
            for number, batch, reference, counts in self._batches(step, rows)
        )
        # Over the whole window, not the batch: accumulation then equals one large batch.
        parts = self.policy.accumulate_all(batches, self.config, 1 / len(rows))
        scores = self._gathered(step, parts)
        metrics = self._metrics(scores, rows) | self._online_f(scores, rows)
        if math.isfinite(metrics["loss"]):
            norm = self.policy.apply_gradients(rate, self.config.max_grad_norm)
        else:
            norm = math.nan
            self.policy.drop_gradients()
        return metrics | {"grad_norm": norm}

    def _by_losses(self, step: int, rows: Int64s, rate: float) -> Metrics:
        """A step from the loss on both sides of θ; its metrics are means of both."""

        features = self.config.needs_features
        sides: list[Scores] = []
        for sign in (1, -1):
            with self.policy.perturbed(sign, stay=True):
                parts = [
                    self.policy.score(
                        batch, reference, self.config, features=features
                    ).without_pooled()
                    for _, batch, reference, _ in self._batches(step, rows)
                ]
                sides.append(self._gathered(step, parts))
        plus, minus = (self._metrics(side, rows) for side in sides)
        epsilon = self.config.direction("zo_epsilon")
        c = slope(sides[0], sides[1], self._reference_logps(rows), self.config, epsilon)
        norm = self.policy.apply_slope(c, rate, self.config.max_grad_norm)
        return {name: (plus[name] + minus[name]) / 2 for name in plus} | {"grad_norm": norm}

    def _shares(self, step: int) -> list[list[Int64s]]:
        """Which positions of a step's rows each process takes, of each batch."""
        return shares([len(batch) for batch in self.plan.batches(step)], self.data.group.size)

    def _batches(
        self, step: int, rows: Int64s
    ) -> Iterator[tuple[int, Batch, ReferenceBatch, bool]]:
        """This process's batches of a step, numbered over all processes, and whether each counts.

        Over a sharded model a process without rows of a batch runs another, which does not.
        """
        group = self.data.group
        for part, places in enumerate(self._shares(step)[group.rank]):
            counts = len(places) > 0
            if counts or self.policy.info.sharded:
                taken = rows[places] if counts else rows[:1]
                yield part * group.size + group.rank, *self._batch(taken, step), counts

    def _gathered(self, step: int, parts: list[Scores]) -> Scores:
        """Scores of all rows of a step, from those of this process's batches."""
        local = join(parts) if parts else None
        owners = [joined(positions) for positions in self._shares(step)]
        return gather_scores(self.data.group, local, owners)

    def _metrics(self, scores: Scores, rows: Int64s) -> Metrics:
        return preference_metrics(scores, self._reference_logps(rows), self.config)

    def _batch(self, rows: Int64s, step: int) -> tuple[Batch, ReferenceBatch]:
        if self.pool is None:
            return self.data.batch(self.data.train, rows, step)
        return self.pool.batch(self.data, rows)

    def _reference_logps(self, rows: Int64s) -> np.ndarray:
        if self.pool is None:
            return self.data.reference_logps(self.data.train, rows)
        return self.pool.reference_logps(self.data, rows)

    def _num_tokens(self, rows: Int64s) -> int:
        if self.pool is None:
            return self.data.train.num_tokens(rows)
        return self.pool.num_tokens(self.data, rows)

    def _online(self, rows: Int64s) -> OnlineTerms | None:
        route = self.config.route
        if route is None or self.pool is None:
            return None
        return online_terms(rows, len(self.data.train), route, self.baseline)

    def _online_f(self, scores: Scores, rows: Int64s) -> Metrics:
        """Mean F of the pairs with a score term, which later steps take as their baseline."""
        terms = self._online(rows)
        if terms is None or not np.any(terms.own_samples):
            return {}
        losses = pair_losses(scores, self._reference_logps(rows), self.config)
        return {"online/f": -float(losses[terms.own_samples > 0].mean())}
