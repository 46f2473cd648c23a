"""Sampling completions with mlx-lm's batched generator."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx_lm.generate import BatchGenerator

from fpo_core.backend.draws import pick
from fpo_core.backend.policy import OnTokens, Sampling
from fpo_mlx import ops


def generate(
    model: nn.Module,
    prompts: list[np.ndarray],
    sampling: Sampling,
    draws: np.ndarray,
    on_tokens: OnTokens | None = None,
    filled: list[Any] | None = None,
) -> list[np.ndarray]:
    """Completions of token-id prompts, the stop token included; see `Policy.generate`.

    `filled` are caches that hold what stands in front of every prompt.
    """
    # Continuous batching: prompts are read some at a time, while earlier ones go on.
    generator = BatchGenerator(
        model,
        stop_tokens=[[token] for token in sampling.stop],
        completion_batch_size=max(len(prompts), 1),
    )
    rows = generator.insert(
        [prompt.tolist() for prompt in prompts],
        [sampling.max_tokens] * len(prompts),
        caches=None if filled is None else [copy.deepcopy(filled) for _ in prompts],
        samplers=[_sampler(row, sampling) for row in draws] if sampling.temperature > 0 else None,
    )
    completions: dict[int, list[int]] = {row: [] for row in rows}
    while responses := generator.next_generated():
        for response in responses:
            completions[response.uid].append(response.token)
        if on_tokens is not None:
            on_tokens({rows.index(response.uid): response.token for response in responses})
    generator.close()
    return [np.array(completions[row], np.int32) for row in rows]


def _sampler(draws: np.ndarray, sampling: Sampling) -> Callable[[mx.array], mx.array]:
    """What draws the tokens of one completion in turn: (1, v) -> (1,)."""
    left: Iterator[float] = iter([*draws.tolist(), 0.0])  # one token beyond the last is drawn

    def sample(logps: mx.array) -> mx.array:
        return pick(ops, logps, mx.array([next(left)]), sampling.temperature, sampling.top_p)

    return sample
