"""Learning rates and the order of rows, as functions of the step alone."""

import math
from dataclasses import dataclass

import numpy as np

from fpo_core.config import OptimiserConfig, TrainConfig, ValueTrainConfig
from fpo_core.data.batching import BatchPlan
from fpo_core.data.token_store import Int64s, TokenisedPairs


def learning_rate(step: int, steps: int, config: TrainConfig | ValueTrainConfig) -> float:
    """The rate of step 1..steps: linear warm-up, then constant, cosine or linear to 0."""
    peak = config.peak_learning_rate(config.fine_tune_type)
    warmup = warmup_steps(steps, config)
    if step <= warmup:
        return peak * step / warmup
    done = (step - warmup - 1) / max(1, steps - warmup)
    if config.schedule == "cosine":
        return peak * (1 + math.cos(math.pi * done)) / 2
    return peak * (1 - done) if config.schedule == "linear" else peak


def warmup_steps(steps: int, config: OptimiserConfig) -> int:
    """Steps of warm-up: a share of the run where below 1, else that many, at most the whole run."""
    wanted = config.warmup * steps if config.warmup < 1 else config.warmup
    return min(steps, round(wanted))


def step_seed(seed: int, step: int, *parts: int) -> int:
    """The seed of one part of a step, from numbers alone: a checkpoint holds no generator's state.

    Of a forward pass it is that of its dropout.
    """
    # NumPy keeps the raw stream of a bit generator for ever, not that of its distributions; torch
    # and MLX take seeds of 63 bits.
    return int(np.random.PCG64([seed, step, *parts]).random_raw()) >> 1


@dataclass(frozen=True)
class RowPlan:
    """Which rows each optimizer step sees.

    Windows of batch_size × grad_accumulation_steps rows are planned first and cut into batches
    second, so accumulation gives the same steps as one large batch.
    """

    windows: BatchPlan
    batch_size: int
    steps: int

    @classmethod
    def of(cls, pairs: TokenisedPairs, config: TrainConfig) -> "RowPlan":
        """The plan of a run over these pairs."""
        window = config.batch_size * config.grad_accumulation_steps
        prompts = pairs.prompts() if config.group_prompts else None
        plan = BatchPlan(pairs.lengths(), window, config.seed, prompts)
        epochs = 1.0 if config.epochs is None else config.epochs
        steps = config.iters or max(1, math.ceil(epochs * plan.batches_per_epoch))
        return cls(plan, config.batch_size, steps)

    def batches(self, step: int) -> list[Int64s]:
        """The rows of step 1..steps, a batch each."""
        rows = self.windows[step - 1]
        return np.split(rows, range(self.batch_size, len(rows), self.batch_size))

    def epoch(self, step: int) -> float:
        """Passes over the data after this step."""
        return step / self.windows.batches_per_epoch
