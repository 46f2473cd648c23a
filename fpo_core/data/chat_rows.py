"""The completions of pairs as token rows, as raw text and under the chat template."""

from collections.abc import Iterable, Iterator
from itertools import islice

from fpo_core.data.tokenizer import Tokenizer, render
from fpo_core.pairs.messages import Message, Text, text_of
from fpo_core.pairs.pair import Pair


def raw_rows(pairs: Iterable[Pair], tokenizer: Tokenizer, width: int) -> list[list[int]]:
    """Both sides of each pair as plain text with the tokenizer's leading tokens, cut to `width`."""
    texts = [
        "\n".join(filter(None, (text_of(prompt), text_of(completion))))
        for prompt, completion, _ in _sides(pairs)
    ]
    return [tokenizer(text, verbose=False).input_ids[:width] for text in texts]


def chat_rows(pairs: Iterable[Pair], tokenizer: Tokenizer, width: int) -> list[list[int]] | None:
    """Both sides of each pair under the chat template, cut to `width`; None without a template.

    A plain-text prompt becomes the user's message, its completion the assistant's. Raises DataError
    where the template refuses a conversation.
    """
    if not tokenizer.chat_template:
        return None
    rows = []
    for prompt, completion, pair in _sides(pairs):
        messages = [*_messages(prompt, "user"), *_messages(completion, "assistant")]
        text = render(
            tokenizer,
            messages,
            generation_prompt=False,
            tools=pair.tools,
            kwargs=pair.chat_template_kwargs,
            where=pair.where,
        )
        rows.append(tokenizer(text, add_special_tokens=False, verbose=False).input_ids[:width])
    return rows


def first_pairs(pairs: Iterable[Pair], count: int) -> list[Pair]:
    """The first pairs of a split."""
    return list(islice(pairs, count))


def _sides(pairs: Iterable[Pair]) -> Iterator[tuple[Text, Text, Pair]]:
    for pair in pairs:
        prompt, *completions = pair.split()
        for completion in completions:
            yield prompt, completion, pair


def _messages(text: Text, role: str) -> list[Message]:
    if not isinstance(text, str):
        return text
    return [{"role": role, "content": text}] if text else []
