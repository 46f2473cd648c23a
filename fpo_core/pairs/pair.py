"""`Pair`: one preference as it is in a file, validated; its words are never edited."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fpo_core.errors import DataError
from fpo_core.pairs.columns import Standard, holds, ignored_columns, standard_columns
from fpo_core.pairs.messages import (
    Message,
    Text,
    kind,
    read_dialogue,
    read_text,
    structure,
    text_of,
    write_dialogue,
)


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
    scores: tuple[float, float] | None = None
    """Of the chosen and the rejected side, where the row has them."""
    notes: tuple[tuple[str, str], ...] = ()
    """Issues of `fpo_core.data.report` that the columns show, with what each is about."""
    ignored: tuple[str, ...] = ()
    """Columns that hold something and are not read."""
    dialogue: bool = False
    """Whether the messages were a dialogue in text, which a model without chat template reads."""

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

    def as_text(self) -> "Pair":
        """A dialogue as the text that it was, for a model without chat template."""
        prompt, chosen, rejected = (write_dialogue(_messages(part)) for part in self.split())
        # What both replies begin with asks for them: it belongs to the prompt.
        opening = "\n\nAssistant:"
        if not (chosen.startswith(opening) and rejected.startswith(opening)):
            opening = ""
        return replace(
            self,
            prompt=prompt + opening,
            chosen=chosen.removeprefix(opening),
            rejected=rejected.removeprefix(opening),
            dialogue=False,
        )


def parse_pair(
    columns: Any, row: int, where: str, mapping: Mapping[str, str] | None = None
) -> Pair:
    """Read one row of a data set, with the columns that `mapping` names for standard names.

    A text prompt next to conversations is their first user message, or repeats one (as in
    UltraFeedback). Raises DataError with `where`, what was found and what was expected.
    """
    if not isinstance(columns, Mapping):
        raise DataError(
            f"{where}: found {kind(columns)}, expected an object with chosen and rejected, "
            "with prompt unless they begin with it"
        )
    standard = standard_columns(columns, mapping or {}, where)
    values = standard.values
    pair = Pair(
        chosen=read_text(values["chosen"], "chosen", where),
        rejected=read_text(values["rejected"], "rejected", where),
        prompt=_read_prompt(values, where),
        tools=structure(values.get("tools"), "tools", list, where),
        chat_template_kwargs=structure(
            values.get("chat_template_kwargs"), "chat_template_kwargs", dict, where
        ),
        row=row,
        where=where,
        scores=standard.scores,
    )
    pair = _with_system(_with_prompt(_with_dialogue(_alike(pair)), standard), standard)
    notes = [note for note in standard.notes if not _is_repeated(note, columns, pair)]
    return replace(pair, notes=tuple(notes), ignored=ignored_columns(columns, standard.read))


def _read_prompt(values: Mapping[str, Any], where: str) -> Text | None:
    """The prompt of a row, with Alpaca's input after it and its history before it."""
    about, earlier = values.get("input"), values.get("history")
    prompt = values.get("prompt")
    if prompt is None and not (holds(about) or holds(earlier)):
        return None
    name = values.get("prompt_column", "prompt")
    text = read_text("" if prompt is None else prompt, name, where)
    if holds(about):
        if not isinstance(text, str) or not isinstance(about, str):
            raise DataError(
                f"{where}: input is {kind(about)} beside a prompt that is {kind(text)}, "
                "expected text beside text: join them in one column"
            )
        text = "\n".join(filter(None, (text, about)))
    return [*_history(earlier, where), *_messages(text)] if holds(earlier) else text


def _history(value: Any, where: str) -> list[Message]:
    """Earlier turns as [question, answer] lists."""
    turns = value if isinstance(value, list) else []
    shapes = [isinstance(turn, list) and list(map(type, turn)) for turn in turns]
    if not turns or any(shape != [str, str] for shape in shapes):
        raise DataError(
            f"{where}: history is {kind(value)}, expected a list of [question, answer]: "
            "write the prompt as messages"
        )
    return [m for q, a in turns for m in (*_messages(q), *_messages(a, "assistant"))]


def _messages(text: Text, role: str = "user") -> list[Message]:
    return [{"role": role, "content": text}] if isinstance(text, str) else text


def _alike(pair: Pair) -> Pair:
    """`pair` with both sides as texts or as messages, which texts become under a conversation."""
    chosen, rejected = pair.chosen, pair.rejected
    if type(chosen) is not type(rejected):
        raise DataError(
            f"{pair.where}: chosen is {kind(chosen)} and rejected {kind(rejected)}, "
            "expected both alike: write both as text or both as messages"
        )
    return _as_replies(pair) if isinstance(pair.prompt, list) else pair


def _as_replies(pair: Pair) -> Pair:
    """`pair` with texts of its sides as the assistant's messages."""
    chosen, rejected = (_messages(side, "assistant") for side in (pair.chosen, pair.rejected))
    return replace(pair, chosen=chosen, rejected=rejected)


def _with_dialogue(pair: Pair) -> Pair:
    """`pair` as messages where its texts are Anthropic's dialogues, or its prompt is one."""
    if isinstance(pair.chosen, list) or isinstance(pair.rejected, list):
        return pair
    if isinstance(pair.prompt, str):
        prompt = read_dialogue(pair.prompt, opening=True)
        if prompt is None:
            return pair
        sides = {"chosen": pair.chosen.strip(), "rejected": pair.rejected.strip()}
        return _as_replies(replace(pair, prompt=prompt, dialogue=True, **sides))
    chosen, rejected = read_dialogue(pair.chosen), read_dialogue(pair.rejected)
    if chosen is None or rejected is None:
        return pair
    return replace(pair, chosen=chosen, rejected=rejected, dialogue=True)


def _with_prompt(pair: Pair, standard: Standard) -> Pair:
    """`pair` with a text prompt beside conversations as the user's turn, unless they repeat it."""
    if not isinstance(pair.prompt, str) or isinstance(pair.chosen, str):
        return pair
    shared, chosen, rejected = replace(pair, prompt=None).split()
    if _squeezed(pair.prompt) in _squeezed(text_of(shared)):
        return replace(pair, prompt=None)
    starts = [*_messages(shared), *_messages(chosen)[:1], *_messages(rejected)[:1]]
    asked = any(message["role"] == "user" for message in starts)
    if not asked:
        turns = [*_messages(shared), *_messages(pair.prompt)]
        return replace(pair, prompt=turns, chosen=chosen, rejected=rejected)
    # Only a column called prompt promises one; another name may be about the row, as a remark is.
    name = standard.values.get("prompt_column", "prompt")
    if name == "prompt":
        raise DataError(
            f"{pair.where}: prompt is text that the messages of chosen and rejected do not repeat, "
            "expected it there or no user's turn in them: correct it, or leave it out with "
            "columns prompt="
        )
    standard.read.discard(name)
    standard.notes.append(("unread", name))
    return replace(pair, prompt=None)


def _with_system(pair: Pair, standard: Standard) -> Pair:
    """`pair` with the system column as its first message; texts become turns of a conversation.

    They do wherever the column is, so that rows with an empty one look like the others.
    """
    if "system" not in standard.values:
        return pair
    system = standard.values["system"] or ""
    if not isinstance(system, str):
        raise DataError(f"{pair.where}: system is {kind(system)}, expected text: fix the row")
    prompt, chosen, rejected = pair.split()
    if isinstance(prompt, str):
        if pair.prompt is None:
            raise DataError(
                f"{pair.where}: found a system text and no prompt, expected the user's turn: map "
                "its column with columns prompt=NAME"
            )
        prompt, chosen, rejected = (
            _messages(part, role)
            for part, role in ((prompt, "user"), (chosen, "assistant"), (rejected, "assistant"))
        )
    present = text_of([m for m in prompt if m["role"] == "system"])
    if system.strip() and _squeezed(system) not in _squeezed(present):
        if present:
            raise DataError(
                f"{pair.where}: the column system differs from the system message of the prompt, "
                "expected one of them: leave the column out with columns system="
            )
        prompt = [{"role": "system", "content": system}, *prompt]
    return replace(pair, prompt=prompt, chosen=chosen, rejected=rejected)


def _is_repeated(note: tuple[str, str], columns: Mapping[str, Any], pair: Pair) -> bool:
    """Whether a column that may belong to the prompt says only what the prompt has too."""
    issue, name = note
    text = columns.get(name)
    if issue != "unread" or not isinstance(text, str):
        return False
    return _squeezed(text) in _squeezed(text_of(pair.split()[0]))


def _squeezed(text: str) -> str:
    return " ".join(text.split())
