"""What `fpo generate` does: a prompt to tokens, completions, and back to text."""

import sys
from typing import Any

import numpy as np

from fpo.session import FROZEN, Session
from fpo_core.backend.policy import Sampling
from fpo_core.config import GenerateConfig
from fpo_core.data.tokenizer import render
from fpo_core.errors import ConfigError


def complete(config: GenerateConfig) -> dict[str, Any]:
    """Completions of the prompt; the mapping that --json prints."""
    session = Session(config)
    prompt = sys.stdin.read() if config.prompt == "-" else config.prompt
    text = prompt_text(session.tokenizer, prompt, config)
    special = text == prompt  # a chat template has written its own special tokens
    ids = np.asarray(session.tokenizer(text, add_special_tokens=special).input_ids, np.int32)
    if not len(ids):
        raise ConfigError("prompt is empty, expected some text")
    policy = session.policy(FROZEN)
    sampling = Sampling(
        config.max_tokens, config.temperature, config.top_p, config.seed, session.stop
    )
    completions = policy.generate([ids] * config.samples, sampling)
    return {
        "backend": session.backend,
        "model": config.model,
        "adapter": config.adapter,
        "prompt": text,
        "prompt_tokens": len(ids),
        "completions": [_described(session, tokens) for tokens in completions],
    }


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


def _described(session: Session, tokens: np.ndarray) -> dict[str, Any]:
    text = session.tokenizer.decode(tokens, skip_special_tokens=True)
    ended = bool(len(tokens)) and int(tokens[-1]) in session.stop
    return {"text": text, "tokens": len(tokens), "ended": ended}
