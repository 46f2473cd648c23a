"""A prompt as the model reads it."""

from typing import Any

import numpy as np

from fpo_core.config import PromptConfig
from fpo_core.data.tokenise import DATE
from fpo_core.data.tokenizer import render
from fpo_core.errors import ConfigError
from fpo_core.io.foreign_text import check_unicode
from fpo_core.pairs.goals import GoalTemplate, require_template
from fpo_core.pairs.messages import Text

_PROBE = "x-probe-x"


def prompt_text(tokenizer: Any, prompt: str, config: PromptConfig) -> str:
    """The prompt as the model reads it: a user message where there is a chat template."""
    if config.ignore_chat_template or not tokenizer.chat_template:
        if config.system_prompt is not None:
            raise ConfigError(
                "system_prompt is set, but this tokenizer has no chat template: put it into the "
                "prompt"
            )
        if config.goal is None:
            return prompt
        asked = _template(config).prompt(prompt, config.goal, "prompt")
        assert isinstance(asked, str)
        return asked
    messages: Text = [{"role": "user", "content": prompt}]
    if config.system_prompt is not None:
        messages.insert(0, {"role": "system", "content": config.system_prompt})
    if config.goal is not None:
        messages = _template(config).prompt(messages, config.goal)
    assert not isinstance(messages, str)
    return render(tokenizer, messages, generation_prompt=True)


def _template(config: PromptConfig) -> GoalTemplate:
    return require_template(config.adapter, config.model)


def prompt_ids(tokenizer: Any, text: str, config: PromptConfig) -> np.ndarray:
    """The token ids (t,) of a `prompt_text`. Raises ConfigError where there is none."""
    rendered = bool(tokenizer.chat_template) and not config.ignore_chat_template
    ids = token_ids(tokenizer, text, rendered=rendered)
    if not len(ids):
        raise ConfigError("prompt is empty, expected some text")
    return ids


def question_ids(tokenizer: Any, question: str, date: str) -> np.ndarray:
    """The ids of a user's message, (t,), or without a chat template of a question to continue."""
    if not tokenizer.chat_template:
        return token_ids(tokenizer, f"Question: {question}\nAnswer:", rendered=False)
    messages = [{"role": "user", "content": question}]
    text = render(tokenizer, messages, generation_prompt=True, date=date)
    return token_ids(tokenizer, text, rendered=True)


def token_ids(tokenizer: Any, text: str, *, rendered: bool) -> np.ndarray:
    """Ids (t,) of a text; the chat template that `rendered` it has written the special ones."""
    check_unicode(text, "prompt")
    return np.asarray(tokenizer(text, add_special_tokens=not rendered).input_ids, np.int32)


def bare_prompt(tokenizer: Any, ids: np.ndarray) -> str:
    """A prompt as text, without what the chat template writes around a user's message."""
    text = tokenizer.decode(ids, skip_special_tokens=True)
    if not tokenizer.chat_template:
        return text.strip()
    probe = question_ids(tokenizer, _PROBE, date=DATE)
    before, _, after = tokenizer.decode(probe, skip_special_tokens=True).partition(_PROBE)
    return text.removeprefix(before).removesuffix(after).strip()
