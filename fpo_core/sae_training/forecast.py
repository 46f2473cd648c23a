"""What a run will take, tried on its own largest forward batch and on a few steps."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fpo_core.backend.parts import Devices
from fpo_core.backend.process_group import ALONE
from fpo_core.sae_training.kernels import Kernels
from fpo_core.sae_training.learner import Learner, Scaling
from fpo_core.sae_training.recipe import Recipe
from fpo_core.sae_training.stream import ActivationStream

_STEPS = 2
"""Steps that are timed, after one that is not."""


@dataclass(frozen=True)
class Forecast:
    """A run's demands in bytes, seconds and tokens."""

    distinct_tokens: int
    """Tokens whose activations differ, of the texts to train on."""
    tokens: int
    steps: int
    forward_tokens: int
    """Tokens that pass through the model."""
    forward_seconds: float
    training_seconds: float
    memory: int
    """Of the process, model and buffer included; of an accelerator and the buffer."""
    buffer: int
    """Of these, the activations that wait."""
    state_on_disk: int
    cache_on_disk: int

    @property
    def seconds(self) -> float:
        """The whole run, less the measurements at its end."""
        return self.forward_seconds + self.training_seconds

    def to_mapping(self) -> dict[str, Any]:
        """The forecast as JSON values."""
        return asdict(self) | {"seconds": self.seconds}

    def lines(self) -> list[str]:
        """The forecast in sentences."""
        passes = self.tokens / max(1, self.distinct_tokens)
        lines = [
            f"{self.distinct_tokens:,} different tokens to train on, each seen {passes:.1f} times: "
            f"{self.tokens:,} tokens in {self.steps:,} steps",
            f"about {_minutes(self.forward_seconds)} for the model's activations and "
            f"{_minutes(self.training_seconds)} for the autoencoder",
            f"about {self.memory / 2**30:.2f} GiB of memory, {self.buffer / 2**30:.2f} of them for "
            f"activations; {self.state_on_disk / 2**30:.2f} GiB on disk to go on from",
        ]
        if self.cache_on_disk:
            lines.append(f"{self.cache_on_disk / 2**30:.2f} GiB of activations in the cache")
        return lines


def forecast(
    stream: ActivationStream,
    recipe: Recipe,
    kernels: Kernels,
    devices: Devices,
    buffer_tokens: int,
    *,
    cached: bool,
) -> Forecast:
    """Try the run: one pass of the largest forward batch, a few steps of every autoencoder."""
    distinct = sum(stream.counts)
    resident = distinct <= buffer_tokens
    forward = distinct if resident or cached else recipe.tokens
    devices.reset_peak_memory(kernels.device)
    per_token = _time_forward(stream)
    per_step = _time_steps(stream.widths, recipe, kernels)
    peak = devices.peak_memory(kernels.device)
    row = 2 * sum(stream.widths)
    buffer = row * min(buffer_tokens, distinct)
    state = 24 * recipe.d_sae * sum(stream.widths) + buffer
    return Forecast(
        distinct_tokens=distinct,
        tokens=recipe.tokens,
        steps=recipe.steps,
        forward_tokens=forward,
        forward_seconds=per_token * forward / stream.processes,
        training_seconds=per_step * recipe.steps,
        memory=peak + buffer,
        buffer=buffer,
        state_on_disk=state,
        cache_on_disk=row * distinct if cached else 0,
    )


def _time_forward(stream: ActivationStream) -> float:
    """Seconds per token that is read, on the largest batch."""
    largest = max(range(len(stream.batches)), key=lambda i: stream.batches[i].tokens.size)
    seconds = []
    for _ in range(2):
        begun = time.monotonic()
        stream.reader.read(stream.batches[largest].tokens)
        seconds.append(time.monotonic() - begun)
    # Of other batches too only a part is read: the share of all of them.
    read = sum(stream.counts) / sum(batch.tokens.size for batch in stream.batches)
    return min(seconds) / (stream.batches[largest].tokens.size * read)


def _time_steps(widths: Sequence[int], recipe: Recipe, kernels: Kernels) -> float:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(recipe.batch_tokens, max(widths))).astype(np.float32)
    # All at once, as in the run: what counts is the memory of all.
    learners = [
        Learner(kernels, recipe, Scaling(np.zeros(width, np.float32), 1.0, np.inf), ALONE)
        for width in widths
    ]
    begun = 0.0
    for step in range(1 + _STEPS):
        if step == 1:
            begun = time.monotonic()
        for learner in learners:
            learner.learn(kernels.array(x))
    return (time.monotonic() - begun) / _STEPS


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
