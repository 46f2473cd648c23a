"""`Pair`: one preference as it is in a file, validated and never edited."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fpo_core.errors import DataError

Message = dict[str, Any]
Text = str | list[Message]
"""A plain text, or a conversation: messages with a role and a content."""

_COLUMNS = "chosen and rejected, with prompt unless they begin with it"


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt with a preferred and a less preferred completion, in TRL's formats.

    Either all are texts or all are lists of messages. Where `prompt` is None it is implicit:
    `chosen` and `rejected` each begin with it.
    """

    chosen: Text
    rejected: Text
    prompt: Text | None = None
    tools: list[Any] | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None
    row: int = 0
    """Row of the file from 1; the line, for JSONL."""
    where: str = ""
    """File and row, for error messages."""

    @property
    def is_conversation(self) -> bool:
        """Whether the sides are lists of messages, which a chat template renders, and not texts."""
        return not isinstance(self.chosen, str)

    def split(self) -> tuple[Text, Text, Text]:
        """(prompt, chosen completion, rejected completion), with an implicit prompt extracted.

        An implicit prompt is the longest common prefix, in messages or characters. Conversations
        keep at least one message per completion; the completion of a text may be empty.
        """
        if self.prompt is not None:
            return self.prompt, self.chosen, self.rejected
        most = min(len(self.chosen), len(self.rejected)) - self.is_conversation
        at = 0
        while at < most and self.chosen[at] == self.rejected[at]:
            at += 1
        return self.chosen[:at], self.chosen[at:], self.rejected[at:]


def parse_pair(columns: Any, row: int, where: str) -> Pair:
    """Validate one row of a data set. Raises DataError with `where`, what was found and expected.

    A text prompt next to conversations repeats their first message (as in UltraFeedback) and is
    ignored in favour of the implicit prompt. Unknown columns are ignored.
    """
    if not isinstance(columns, Mapping):
        raise DataError(f"{where}: found {_kind(columns)}, expected an object with {_COLUMNS}")
    for name in ("chosen", "rejected"):
        if name not in columns:
            present = ", ".join(map(str, columns)) or "none"
            raise DataError(
                f"{where}: no column {name!r}; found {present}; expected {_COLUMNS}: "
                "rename the columns"
            )
        _check_text(columns[name], name, where)
    chosen, rejected, prompt = columns["chosen"], columns["rejected"], columns.get("prompt")
    if type(chosen) is not type(rejected):
        raise DataError(
            f"{where}: chosen is {_kind(chosen)} and rejected {_kind(rejected)}, "
            "expected both alike: write both as text or both as messages"
        )
    if prompt is not None:
        _check_text(prompt, "prompt", where)
    if isinstance(prompt, list) and isinstance(chosen, str):
        raise DataError(
            f"{where}: prompt is messages and chosen is text, expected both alike: write chosen "
            'and rejected as [{"role": "assistant", "content": ...}]'
        )
    return Pair(
        chosen=chosen,
        rejected=rejected,
        prompt=None if isinstance(prompt, str) and isinstance(chosen, list) else prompt,
        tools=_structure(columns, "tools", list, where),
        chat_template_kwargs=_structure(columns, "chat_template_kwargs", dict, where),
        row=row,
        where=where,
    )


def _check_text(value: Any, name: str, where: str) -> None:
    if isinstance(value, str):
        return
    if not isinstance(value, list) or not all(isinstance(m, Mapping) for m in value):
        raise DataError(
            f"{where}: {name} is {_kind(value)}, expected text or a list of messages: fix the row"
        )
    if not value and name != "prompt":
        raise DataError(f"{where}: {name} has no messages, expected at least one: remove the row")
    for message in value:
        if not isinstance(message.get("role"), str):
            raise DataError(
                f"{where}: a message of {name} has the keys {', '.join(map(str, message))}, "
                "expected role and content: rename the keys"
            )


def _structure(columns: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    """An optional column of JSON, as a value or serialised to text (TRL accepts both)."""
    value = columns.get(name)
    if isinstance(value, str):
        try:
            value = json.loads(value) if value else None
        except ValueError as error:
            raise DataError(f"{where}: {name} is not valid JSON ({error}): fix the row") from None
    if value is not None and not isinstance(value, kind):
        raise DataError(
            f"{where}: {name} is {_kind(value)}, expected {_NAMES[kind]}: fix or remove the column"
        )
    return value or None


_NAMES = {str: "text", list: "a list", dict: "an object", type(None): "null", bool: "true or false"}


def _kind(value: Any) -> str:
    return _NAMES.get(type(value), "a number")
