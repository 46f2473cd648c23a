"""A prompt to tokens, completions, and back to text."""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fpo.model_setup import ModelSetup
from fpo.prompt_text import prompt_ids, prompt_text
from fpo.results import Result, Table
from fpo.samplers import frozen_sampler
from fpo.workflow import workflow
from fpo_core.config import GenerateConfig
from fpo_core.errors import ConfigError
from fpo_core.events import Event, Sink, note, progress


@dataclass(frozen=True)
class Completion:
    """One answer."""

    text: str
    tokens: int
    ended: bool
    """Whether the model ended it, rather than `max_tokens`."""

    @classmethod
    def of(cls, setup: ModelSetup, tokens: np.ndarray) -> "Completion":
        """The completion of these tokens (t,)."""
        text = setup.tokenizer.decode(tokens, skip_special_tokens=True)
        return cls(text, len(tokens), bool(len(tokens)) and int(tokens[-1]) in setup.stop)


@dataclass(frozen=True)
class Generation(Result):
    """Completions of a prompt."""

    backend: str
    model: str
    adapter: str | None
    prompt: str
    """As the model read it, with its chat template."""
    prompt_tokens: int
    completions: list[Completion]
    tokens_per_second: float = math.nan
    """All completions together, the reading of the prompt included."""

    @property
    def texts(self) -> list[str]:
        """The completions as text."""
        return [completion.text for completion in self.completions]

    def table(self) -> Table:
        """A completion a row."""
        return Table(("completion", "tokens"), [(c.text, str(c.tokens)) for c in self.completions])

    def to_mapping(self) -> dict[str, Any]:
        """The generation as JSON values."""
        values = asdict(self)
        del values["tokens_per_second"]  # the only value that a seed does not decide
        return values


class TextStream:
    """Turns tokens into pieces of text as they come, an event each."""

    def __init__(self, tokenizer: Any, samples: int, total: int, sink: Sink) -> None:
        self._tokenizer, self._sink, self._total = tokenizer, sink, total
        self._ids: list[list[int]] = [[] for _ in range(samples)]
        self._emitted = [""] * samples
        self.count = 0

    def __call__(self, tokens: Mapping[int, int]) -> None:
        """Take one token of each completion that goes on."""
        for i, token in tokens.items():
            self._ids[i].append(token)
            text = self._tokenizer.decode(self._ids[i], skip_special_tokens=True)
            # Half a character, as of an emoji, waits for the tokens that complete it.
            if not text.endswith("\ufffd"):
                self.emit(i, text)
        self.count += len(tokens)
        progress(self._sink, "sampling tokens", self.count, self._total)

    def emit(self, i: int, text: str) -> None:
        """Emit what a completion's text adds to what it was before."""
        before, self._emitted[i] = self._emitted[i], text
        if piece := text[len(before) :]:
            self._sink(Event("text", 0, {"sample": i, "text": piece}))


@workflow(GenerateConfig)
def generate(config: GenerateConfig, sink: Sink) -> Generation:
    """Let a model answer a prompt, with or without an adapter; `answer_prompts` takes a file.

    The prompt is a user message in the tokenizer's own chat template, where it has one. The sink
    hears each completion as it comes, in events of the kind `text`.
    """
    if config.prompt is None:
        raise ConfigError("prompts is set, which is a file: call answer_prompts, or set prompt")
    setup = ModelSetup(config)
    text = prompt_text(setup.tokenizer, config.prompt, config)
    ids = prompt_ids(setup.tokenizer, text, config)
    setup.warn_of_base(config.adapter, sink)
    note(sink, f"loading {setup.model.name}")
    sampler = frozen_sampler(setup, len(ids) + config.max_tokens)
    note(sink, f"reading {len(ids)} tokens")
    stream = TextStream(setup.tokenizer, config.samples, config.samples * config.max_tokens, sink)
    start = time.perf_counter()
    sampled = sampler.generate([ids] * config.samples, setup.sampling(config), stream)
    seconds = time.perf_counter() - start
    completions = [Completion.of(setup, tokens) for tokens in sampled]
    for i, completion in enumerate(completions):
        stream.emit(i, completion.text)
    return Generation(
        backend=setup.backend,
        model=config.model,
        adapter=config.adapter,
        prompt=text,
        prompt_tokens=len(ids),
        completions=completions,
        tokens_per_second=stream.count / seconds,
    )
