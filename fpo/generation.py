"""A prompt to tokens, completions, and back to text."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fpo.model_setup import FROZEN, ModelSetup
from fpo.results import Result, Table
from fpo.workflow import workflow
from fpo_core.backend.policy import Sampling
from fpo_core.config import GenerateConfig
from fpo_core.data.tokenizer import render
from fpo_core.errors import ConfigError


@dataclass(frozen=True)
class Completion:
    """One answer."""

    text: str
    tokens: int
    ended: bool
    """Whether the model ended it, rather than `max_tokens`."""


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

    @property
    def texts(self) -> list[str]:
        """The completions as text."""
        return [completion.text for completion in self.completions]

    def table(self) -> Table:
        """A completion a row."""
        return Table(("completion", "tokens"), [(c.text, str(c.tokens)) for c in self.completions])

    def to_mapping(self) -> dict[str, Any]:
        """The generation as JSON values."""
        return asdict(self)


@workflow(GenerateConfig)
def generate(config: GenerateConfig) -> Generation:
    """Let a model answer a prompt, with or without an adapter.

    The prompt is a user message in the tokenizer's own chat template, where it has one.
    """
    setup = ModelSetup(config)
    text = prompt_text(setup.tokenizer, config.prompt, config)
    special = text == config.prompt  # a chat template has written its own special tokens
    ids = np.asarray(setup.tokenizer(text, add_special_tokens=special).input_ids, np.int32)
    if not len(ids):
        raise ConfigError("prompt is empty, expected some text")
    policy = setup.policy(FROZEN)
    sampling = Sampling(
        config.max_tokens, config.temperature, config.top_p, config.seed, setup.stop
    )
    completions = policy.generate([ids] * config.samples, sampling)
    return Generation(
        backend=setup.backend,
        model=config.model,
        adapter=config.adapter,
        prompt=text,
        prompt_tokens=len(ids),
        completions=[_completion(setup, tokens) for tokens in completions],
    )


def prompt_text(tokenizer: Any, prompt: str, config: GenerateConfig) -> str:
    """The prompt as the model reads it: a user message where there is a chat template."""
    if config.ignore_chat_template or not tokenizer.chat_template:
        if config.system_prompt is not None:
            raise ConfigError(
                "system_prompt is set, but this tokenizer has no chat template: put it into the "
                "prompt"
            )
        return prompt
    messages = [{"role": "user", "content": prompt}]
    if config.system_prompt is not None:
        messages.insert(0, {"role": "system", "content": config.system_prompt})
    return render(tokenizer, messages, generation_prompt=True)


def _completion(setup: ModelSetup, tokens: np.ndarray) -> Completion:
    text = setup.tokenizer.decode(tokens, skip_special_tokens=True)
    return Completion(text, len(tokens), bool(len(tokens)) and int(tokens[-1]) in setup.stop)
