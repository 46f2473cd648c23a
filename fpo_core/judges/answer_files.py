"""Files of prompts, and of answers to them: ours, and those of other harnesses."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fpo_core.errors import DataError
from fpo_core.io.foreign_text import check_unicode
from fpo_core.io.regular import parse_json, read_lines, read_text

_LIMIT = 1 << 30
_PROMPTS = ("prompt", "instruction", "question", "turns")
_COMPLETIONS = ("completion", "output", "response", "answer")


@dataclass(frozen=True)
class FilePrompt:
    """A prompt of a file."""

    text: str
    where: str
    """File and line, to name it by."""
    row: Mapping[str, Any] = field(default_factory=dict)
    """The object that it stands in."""


@dataclass(frozen=True)
class Answer:
    """A completion of a prompt."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class AnsweredTwice:
    """Two models' completions of the same prompts, in order."""

    prompts: list[str]
    a: list[str]
    b: list[str]
    names: tuple[str, str]
    """What the models are called."""

    @property
    def lengths(self) -> list[tuple[int, int]]:
        """Characters of both completions."""
        return [(len(left), len(right)) for left, right in zip(self.a, self.b, strict=True)]


def read_prompts(path: Path) -> list[FilePrompt]:
    """The prompts of a file: JSONL or a JSON list of objects or texts, else one a line.

    Of an object the `prompt`, `instruction` or `question` counts, of several turns the first; of
    messages the last one of the user. Raises DataError where there is none.
    """
    if not path.is_file():
        raise DataError(f"there is no prompt file {path.absolute()}: check the path")
    prompts = [
        FilePrompt(_prompt(row, where), where, row if isinstance(row, dict) else {})
        for row, where in (_rows if path.suffix in (".jsonl", ".json") else _lines)(path)
    ]
    if not prompts:
        raise DataError(f"{path} is empty, expected one prompt a line")
    for prompt in prompts:
        check_unicode(prompt.text, prompt.where)
        if not prompt.text.strip():
            raise DataError(f"{prompt.where} is an empty prompt, expected a text: remove it")
    return prompts


def read_answers(path: Path) -> list[Answer]:
    """The answers of a file: JSONL or a JSON list of objects with a prompt and a completion.

    AlpacaEval's `instruction` and `output` do as well. Raises DataError for anything else.
    """
    return [Answer(_prompt(row, where), _completion(row, where)) for row, where in _rows(path)]


def matched(
    answers: Sequence[Answer], others: Sequence[Answer], names: tuple[str, str]
) -> AnsweredTwice:
    """Both answers to each prompt, however the files are ordered; the nth to one with its nth.

    Raises DataError where a prompt has another number of answers in the other file.
    """
    left, right = (Counter(answer.prompt for answer in side) for side in (answers, others))
    differing = [prompt for prompt in left | right if left[prompt] != right[prompt]]
    if differing:
        raise DataError(
            f"{names[0]} and {names[1]} answer {len(differing)} prompts a different number of "
            f"times, such as {differing[0][:60]!r}: generate both from one file of prompts"
        )
    by_prompt: dict[str, Iterator[str]] = {
        prompt: iter([other.completion for other in others if other.prompt == prompt])
        for prompt in left
    }
    b = [next(by_prompt[answer.prompt]) for answer in answers]
    return AnsweredTwice([x.prompt for x in answers], [x.completion for x in answers], b, names)


def _rows(path: Path) -> Iterator[tuple[Any, str]]:
    if path.suffix == ".json":
        rows = parse_json(read_text(path, DataError, _LIMIT), str(path), DataError)
        if not isinstance(rows, list):
            raise DataError(f"{path} is no list in JSON, expected one of objects")
        yield from ((row, f"{path} row {number}") for number, row in enumerate(rows, 1))
        return
    for line, where in _lines(path):
        yield parse_json(line, where, DataError), where


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    return read_lines(path, DataError, _LIMIT)


def _prompt(row: Any, where: str) -> str:
    return row if isinstance(row, str) else _field(row, _PROMPTS, where, _asked)


def _completion(row: Any, where: str) -> str:
    return _field(row, _COMPLETIONS, where, lambda value: value)


def _field(row: Any, names: Sequence[str], where: str, text_of: Callable[[Any], Any]) -> str:
    for name in names:
        if isinstance(row, dict) and name in row:
            value = text_of(row[name])
            if isinstance(value, str):
                return value
    raise DataError(f"{where} has no text under {' or '.join(names)}: name it so")


def _asked(value: Any) -> Any:
    """The text of a prompt: itself, the first turn, or the user's last message."""
    if not isinstance(value, list) or not value:
        return value
    if isinstance(value[0], str):
        return value[0]
    asked = [m.get("content") for m in value if isinstance(m, dict) and m.get("role") == "user"]
    return asked[-1] if asked else None


def as_lines(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as JSONL."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
