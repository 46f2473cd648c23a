"""Training a value function on samples of the base model: TD(λ) in steps of some texts each."""

import math
from dataclasses import dataclass

import numpy as np

from fpo_core.backend.policy import Policy
from fpo_core.config import ValueTrainConfig
from fpo_core.data.batching import BatchPlan, scoring_batches
from fpo_core.errors import TrainingError
from fpo_core.events import Sink, progress
from fpo_core.train.schedule import learning_rate, step_seed
from fpo_core.values.episodes import Episodes


@dataclass(frozen=True)
class Learnt:
    """How the steps went."""

    steps: int
    loss_first: float
    loss_last: float
    """Mean ½ (V − G)² over the states of a tenth of the steps, per variance of the rewards."""


def learn(policy: Policy, episodes: Episodes, config: ValueTrainConfig, emit: Sink) -> Learnt:
    """Train adapter and head on rewards of mean 0 and variance 1.

    Raises TrainingError where a loss is not finite.
    """
    lengths = episodes.lengths()
    plan = BatchPlan(lengths, config.value_batch, config.seed)
    steps = max(1, math.ceil(config.epochs * plan.batches_per_epoch))
    policy.prepare_training(config)
    losses = []
    for step in range(1, steps + 1):
        rows, total = plan[step - 1], 0.0
        policy.seed(step_seed(config.seed, step))
        states = episodes.states(rows)
        # Batches are planned for pairs, two sequences to a row; a text is one.
        for places in scoring_batches(lengths[rows], 2 * config.tokens_per_batch):
            taken = rows[places]
            batch, rewards = episodes.batch(taken), episodes.rewards[taken]
            errors = policy.accumulate_values(batch, rewards, config.value_lambda, 1 / states)
            total += float(errors.sum()) / states
        norm = policy.apply_gradients(learning_rate(step, steps, config), config.max_grad_norm)
        if not math.isfinite(total + norm):
            raise TrainingError(
                f"the loss or gradient of step {step} is not finite, expected numbers: set a lower "
                "learning_rate"
            )
        losses.append(total)
        progress(emit, "value steps", step, steps, step)
    tenth = max(1, steps // 10)
    return Learnt(steps, float(np.mean(losses[:tenth])), float(np.mean(losses[-tenth:])))


def values_of(policy: Policy, episodes: Episodes, tokens_per_batch: int) -> list[np.ndarray]:
    """V at the states of each text, (|y| + 1,): the prompt's end first."""
    found: list[np.ndarray] = [np.zeros(0)] * len(episodes)
    for rows in scoring_batches(episodes.lengths(), 2 * tokens_per_batch):
        for row, values in zip(rows, policy.values(episodes.batch(rows)), strict=True):
            begin = len(episodes.prompts[row]) - 1
            found[row] = values[begin : begin + len(episodes.completions[row]) + 1]
    return found
