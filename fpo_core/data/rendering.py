"""Pairs as rendered text, and what of a row the chat template leaves out."""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from fpo_core.data.report import SplitReport
from fpo_core.data.tokenizer import Tokenizer, render
from fpo_core.errors import DataError
from fpo_core.pairs.messages import Message, Text, text_of, words
from fpo_core.pairs.pair import Pair


class Renderer:
    """Writes pairs as text with one tokenizer's chat template, whose `ends` are ids that end turns.

    `date` is what the template writes as today's.
    """

    def __init__(self, tokenizer: Tokenizer, ends: Collection[int], date: str) -> None:
        self._tokenizer = tokenizer
        self._ends = tuple(tokenizer.convert_ids_to_tokens(sorted(ends)))
        self._date = date

    def texts(self, pair: Pair, report: SplitReport) -> tuple[str, str, str]:
        """The prompt, and prompt + completion of each side; `report` counts what gets lost."""
        prompt, *completions = pair.split()
        if isinstance(prompt, str):
            return prompt, f"{prompt}{completions[0]}", f"{prompt}{completions[1]}"
        prompt, *completions = map(self._unended, (prompt, *completions))
        if (prompt, *completions) != pair.split():
            report.note("ended", pair.where)
        sides = [[*prompt, *messages] for messages in completions]
        chosen, rejected = (self._render(pair, side) for side in sides)
        lost = self._lost(pair, sides, (chosen, rejected))
        if lost:
            report.note("not_rendered", f"{pair.where}: {', '.join(lost)}")
        opening = self._render(pair, prompt, generation_prompt=True) if prompt else ""
        return opening, chosen, rejected

    def _unended(self, messages: Text) -> list[Message]:
        """The messages without the end of turn that the template will write after them."""
        assert not isinstance(messages, str)
        return [
            message | {"content": content}
            if (content := self._without_end(message.get("content"))) != message.get("content")
            else message
            for message in messages
        ]

    def _without_end(self, content: Any) -> Any:
        if not isinstance(content, str):
            return content
        while (bare := content.rstrip()).endswith(self._ends):
            content = bare.removesuffix(next(end for end in self._ends if bare.endswith(end)))
        return content

    def _render(
        self,
        pair: Pair,
        messages: Sequence[Message],
        *,
        generation_prompt: bool = False,
        **other: Any,
    ) -> str:
        settings = {"tools": pair.tools} | other
        return render(
            self._tokenizer,
            messages,
            generation_prompt=generation_prompt,
            kwargs=pair.chat_template_kwargs,
            where=pair.where,
            date=self._date,
            **settings,
        )

    def _lost(
        self, pair: Pair, sides: Sequence[Sequence[Message]], texts: Sequence[str]
    ) -> list[str]:
        """What the template does not write: contents, other keys of messages, tools."""
        lost = dict.fromkeys(
            f"content of {message['role']}"
            for side, text in zip(sides, texts, strict=True)
            for message in side
            if not _is_written(message.get("content"), text)
        )
        for key in dict.fromkeys(k for side in sides for m in side for k in m):
            if key not in ("role", "content"):
                said = [word for side in sides for m in side for word in words(m.get(key))]
                bare = [[_without(m, key) for m in side] for side in sides]
                if said and not self._are_written(pair, said, bare, texts):
                    lost[key] = None
        if pair.tools and not self._are_written(pair, words(pair.tools), sides, texts, tools=None):
            lost["tools"] = None
        return list(lost)

    def _are_written(
        self,
        pair: Pair,
        said: Iterable[str],
        bare: Sequence[Sequence[Message]],
        texts: Sequence[str],
        **other: Any,
    ) -> bool:
        """Whether the texts hold the longest of these words, and not without what says them.

        Templates need not write all of a tool's schema, so not every word is looked for.
        """
        longest = max(said, key=len, default="")
        if not any(_is_written(longest, text) for text in texts):
            return False
        return not self._is_same(pair, bare, texts, **other)

    def _is_same(
        self, pair: Pair, sides: Sequence[Sequence[Message]], texts: Sequence[str], **other: Any
    ) -> bool:
        try:
            return all(
                self._render(pair, side, **other) == text
                for side, text in zip(sides, texts, strict=True)
            )
        except DataError:  # the template asks for what was left out
            return False


def observations(pair: Pair) -> Iterator[tuple[str, str]]:
    """Issues of a usable pair that its own parts show, with what each is about."""
    _, *completions = pair.split()
    if any(_is_blank(completion) for completion in completions):
        yield "blank", ""
    if pair.prompt is None and not pair.is_conversation:
        yield "implicit", ""
    if any(m["role"] == "user" for c in completions if isinstance(c, list) for m in c):
        yield "later_turns", ""


def _is_blank(completion: Text) -> bool:
    if isinstance(completion, list) and any(m.get("tool_calls") for m in completion):
        return False
    return not text_of(completion).strip()


def _is_written(content: Any, text: str) -> bool:
    """Whether the rendered text holds `content`, perhaps stripped or as a JSON string."""
    bare = content.strip() if isinstance(content, str) else ""
    return bare in text or json.dumps(bare)[1:-1] in text


def _without(message: Message, key: str) -> Message:
    return {name: value for name, value in message.items() if name != key}
