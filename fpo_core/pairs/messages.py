"""Texts and messages as data sets publish them, read as text or as `role` and `content`.

Read: messages of OpenAI's format, ShareGPT's `from` and `value`, a single message, content as text
parts, messages written out as JSON, and Anthropic's dialogues of "Human: ..." and "Assistant: ...".
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fpo_core.errors import DataError

Message = dict[str, Any]
Text = str | list[Message]
"""A plain text, or a conversation: messages with a role and a content."""

_ROLES = {"human": "user", "gpt": "assistant"}
"""ShareGPT's names of roles."""
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_OPENS_JSON = re.compile(r"\s*[\[{]")
_PART_KEYS = ("type", "text", "cache_control")
_MESSAGE_KEYS = (("role", "content"), ("from", "value"))


def read_text(value: Any, name: str, where: str) -> Text:
    """`value` of column `name` as text or messages. Raises DataError, with `where`, for others."""
    if isinstance(value, str):
        value = _parsed(value, name, where)
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(isinstance(m, Mapping) for m in value):
        raise DataError(
            f"{where}: {name} is {kind(value)}, expected text or a list of messages: fix the row"
        )
    if not value and name != "prompt":
        raise DataError(f"{where}: {name} has no messages, expected at least one: remove the row")
    return [_message(message, name, where) for message in value]


def _parsed(text: str, name: str, where: str) -> Any:
    """Messages that were written out as JSON; any other text as it is, other JSON included."""
    if not _OPENS_JSON.match(text):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        # Python's own spelling, with single quotes, would be trained on as if it were a reply.
        if any(all(re.search(f"['\"]{key}['\"]:", text) for key in keys) for keys in _MESSAGE_KEYS):
            raise DataError(
                f"{where}: {name} is text that spells messages but is not JSON, expected messages "
                "or JSON: write them with json.dumps"
            ) from None
        return text
    messages = [value] if isinstance(value, dict) else value
    return value if messages and all(map(_is_message, messages)) else text


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and any(a in value and b in value for a, b in _MESSAGE_KEYS)


def _message(message: Mapping[str, Any], name: str, where: str) -> Message:
    read = dict(message)
    if "from" in read and "role" not in read:
        read["role"], read["content"] = read.pop("from"), read.pop("value", None)
        read["role"] = _ROLES.get(str(read["role"]), read["role"])
    if isinstance(read.get("tool_calls"), str):
        read["tool_calls"] = structure(read["tool_calls"], "tool_calls", list, where)
    content = read.get("content")
    if isinstance(content, list):
        read["content"] = content = "".join(_part(part, name, where) for part in content)
    calls = content is None and read.get("tool_calls")
    if not isinstance(read.get("role"), str) or not (isinstance(content, str) or calls):
        keys = ", ".join(
            f"{key} (null)" if item is None else str(key) for key, item in message.items()
        )
        raise DataError(
            f"{where}: a message of {name} has the keys {keys or 'none'}, "
            "expected role and content, both text: rename the keys or fill them in"
        )
    return read


def _part(part: Any, name: str, where: str) -> str:
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, Mapping) else None
    if not isinstance(text, str) or part.get("type", "text") != "text":
        shown = part.get("type", "unknown") if isinstance(part, Mapping) else kind(part)
        raise DataError(
            f"{where}: a message of {name} has a part of type {shown}, expected text alone: "
            "choose rows without it"
        )
    others = [key for key in part if key not in _PART_KEYS and any(words(part[key]))]
    if others:
        raise DataError(
            f"{where}: a text part of {name} has the keys {', '.join(map(str, part))}, expected "
            "type and text: choose rows without the others"
        )
    return text


def words(value: Any) -> Iterator[str]:
    """The texts in a JSON value, those of JSON that is written out as text included."""
    if isinstance(value, str):
        try:
            inner = json.loads(value) if _OPENS_JSON.match(value) else None
        except ValueError:
            inner = None
        if isinstance(inner, list | dict):
            yield from words(inner)
        elif value.strip():
            yield value.strip()
    elif isinstance(value, list | Mapping):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from words(item)


def read_dialogue(text: str, *, opening: bool = False) -> list[Message] | None:
    """The messages of an Anthropic dialogue; None for any other text.

    It begins with "Human:". `opening` drops an "Assistant:" at its end, which asks for a reply.
    """
    _, *turns = _TURN.split(text.lstrip())
    if turns[:1] != ["Human"] or "Assistant" not in turns or text.lstrip().find("Human:") != 0:
        return None
    messages = [
        {"role": _SPEAKERS[speaker], "content": content.strip()}
        for speaker, content in zip(turns[::2], turns[1::2], strict=True)
    ]
    return messages[:-1] if opening and not messages[-1]["content"] else messages


def write_dialogue(messages: Sequence[Message]) -> str:
    """The messages as an Anthropic dialogue: the reverse of `read_dialogue`."""
    names = {role: speaker for speaker, role in _SPEAKERS.items()}
    return "".join(f"\n\n{names[m['role']]}: {m['content']}" for m in messages)


def text_of(text: Text) -> str:
    """All of a text or of the contents of its messages, a line each."""
    if isinstance(text, str):
        return text
    return "\n".join(str(message.get("content") or "") for message in text)


_KINDS = {str: "text", list: "a list", dict: "an object", type(None): "null", bool: "true or false"}


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    return _KINDS.get(type(value), "a number")


def structure(value: Any, name: str, expected: type, where: str) -> Any:
    """A column of JSON, as a value or written out as text (TRL accepts both); None where empty."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value else None
        except ValueError as error:
            raise DataError(
                f"{where}: {name} is not valid JSON ({error}), expected {_KINDS[expected]}: "
                "fix the row"
            ) from None
    if value is not None and not isinstance(value, expected):
        raise DataError(
            f"{where}: {name} is {kind(value)}, expected {_KINDS[expected]}: "
            "fix or remove the column"
        )
    return value or None
