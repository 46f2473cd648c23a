"""Sampling completions with mlx-lm's batched generator."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx_lm.generate import BatchGenerator

from fpo_core.backend.draws import pick
from fpo_core.backend.guidance import GuidedPick
from fpo_core.backend.policy import OnTokens, Sampling
from fpo_mlx import ops
from fpo_mlx.guided import ValueReader


def generate(
    model: nn.Module,
    prompts: list[np.ndarray],
    sampling: Sampling,
    draws: np.ndarray,
    on_tokens: OnTokens | None = None,
    filled: list[Any] | None = None,
    readers: Callable[[], list[ValueReader]] = list,
) -> list[np.ndarray]:
    """Completions of token-id prompts, the stop token included; see `Policy.generate`.

    `filled` are caches that hold what stands in front of every prompt; `readers` makes readers of
    the guide's values for one completion.
    """
    samplers, guide = None, sampling.guide
    shape = sampling.temperature, sampling.top_p
    guided = [] if guide is None else [GuidedPick.of(ops, guide, *shape) for _ in prompts]
    if guided:
        rows = zip(prompts, draws, guided, strict=True)
        samplers = [_guided_sampler(*row, readers()) for row in rows]
    elif sampling.temperature > 0:
        samplers = [_sampler(row, sampling) for row in draws]
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
        samplers=samplers,
    )
    completions: dict[int, list[int]] = {row: [] for row in rows}
    while responses := generator.next_generated():
        for response in responses:
            completions[response.uid].append(response.token)
        if on_tokens is not None:
            on_tokens({rows.index(response.uid): response.token for response in responses})
    generator.close()
    sampled = [np.array(completions[row], np.int32) for row in rows]
    if guide is not None and guide.on_kl is not None:
        kept = (p.divergences[: len(ids)] for p, ids in zip(guided, sampled, strict=True))
        guide.on_kl(np.array([mx.concatenate(steps).sum().item() for steps in kept]))
    return sampled


def _sampler(draws: np.ndarray, sampling: Sampling) -> Callable[[mx.array], mx.array]:
    """What draws the tokens of one completion in turn: (1, v) -> (1,)."""
    left: Iterator[float] = iter([*draws.tolist(), 0.0])  # one token beyond the last is drawn

    def sample(logps: mx.array) -> mx.array:
        return pick(ops, logps, mx.array([next(left)]), sampling.temperature, sampling.top_p)

    return sample


def _guided_sampler(
    prompt: np.ndarray, draws: np.ndarray, guided: GuidedPick, readers: Sequence[ValueReader]
) -> Callable[[mx.array], mx.array]:
    """The same by values: its own last token is the next one that they read."""
    left: Iterator[float] = iter(draws.tolist())
    new = mx.array(prompt)

    def sample(logps: mx.array) -> mx.array:
        nonlocal new
        u = next(left, None)
        if u is None:  # a token beyond the last, which nobody sees
            return logps.argmax(-1)
        new = guided(logps, mx.array([u]), lambda candidates: [r(new, candidates) for r in readers])
        return new

    return sample
