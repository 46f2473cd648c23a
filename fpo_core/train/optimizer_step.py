"""One optimizer step: the gradient of a window of batches, accumulated, then applied."""

import math
from dataclasses import dataclass

from fpo_core.backend.policy import Policy
from fpo_core.backend.process_group import gather_scores, joined, shares
from fpo_core.config import TrainConfig
from fpo_core.data.token_store import Int64s
from fpo_core.loss.metrics import preference_metrics
from fpo_core.loss.scores import Scores, join
from fpo_core.train.paired_data import RunData
from fpo_core.train.schedule import RowPlan, dropout_seed, learning_rate
from fpo_core.train.state import Metrics


@dataclass(frozen=True)
class StepResult:
    """What came of a step."""

    metrics: Metrics
    """Means over the window's pairs, the gradient's norm and the learning rate among them."""
    tokens: int

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

    def take(self, step: int) -> StepResult:
        """Take step 1..steps; the policy's weights stay as they are where it cannot be applied."""
        rows = joined(self.plan.batches(step))
        scores = self._accumulate(step, rows)
        logps = self.data.reference_logps(self.data.train, rows)
        metrics = preference_metrics(scores, logps, self.config)
        rate = learning_rate(step, self.plan.steps, self.config)
        if math.isfinite(metrics["loss"]):
            norm = self.policy.apply_gradients(rate, self.config.max_grad_norm)
        else:
            norm = math.nan
            self.policy.drop_gradients()
        metrics |= {"grad_norm": norm, "learning_rate": rate}
        return StepResult(metrics, self.data.train.num_tokens(rows))

    def _accumulate(self, step: int, rows: Int64s) -> Scores:
        """Add the gradient of this process's share of the window; the scores of all its rows."""
        group = self.data.group
        owned = shares([len(batch) for batch in self.plan.batches(step)], group.size)
        parts: list[Scores] = []
        for part, places in enumerate(owned[group.rank]):
            if not len(places):
                continue
            batch, reference = self.data.batch(self.data.train, rows[places])
            # A seed of its own for every forward pass: a resumed run needs no generator's state.
            number = part * group.size + group.rank
            self.policy.seed(dropout_seed(self.config.seed, step, number))
            # Over the whole window, not the batch: accumulation then equals one large batch.
            scores = self.policy.accumulate(batch, reference, self.config, 1 / len(rows))
            parts.append(scores.without_pooled())
        local = join(parts) if parts else None
        return gather_scores(group, local, [joined(positions) for positions in owned])
