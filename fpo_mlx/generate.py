"""Sampling completions with mlx-lm's batched generator."""

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx_lm.generate import BatchGenerator
from mlx_lm.sample_utils import make_sampler

from fpo_core.backend.policy import OnTokens, Sampling


def generate(
    model: nn.Module,
    prompts: list[np.ndarray],
    sampling: Sampling,
    on_tokens: OnTokens | None = None,
) -> list[np.ndarray]:
    """Completions of token-id prompts, the stop token included; see `Policy.generate`."""
    mx.random.seed(sampling.seed)
    # Continuous batching: a prompt takes the place of a completion that ended.
    generator = BatchGenerator(
        model,
        stop_tokens=[[token] for token in sampling.stop],
        sampler=make_sampler(temp=sampling.temperature, top_p=sampling.top_p),
        completion_batch_size=max(len(prompts), 1),
    )
    budgets = [sampling.max_tokens] * len(prompts)
    rows = generator.insert([prompt.tolist() for prompt in prompts], budgets)
    completions: dict[int, list[int]] = {row: [] for row in rows}
    while responses := generator.next_generated():
        for response in responses:
            completions[response.uid].append(response.token)
        if on_tokens is not None:
            on_tokens({rows.index(response.uid): response.token for response in responses})
    generator.close()
    return [np.array(completions[row], np.int32) for row in rows]
