"""An endpoint's replies by the content of their questions, so that none is paid for twice."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fpo_core.errors import ConfigError
from fpo_core.io.atomic import writing
from fpo_core.io.lock import locked_by
from fpo_core.io.regular import read_text
from fpo_core.judges.templates import Reply

_LIMIT = 4 << 30


def reply_key(request: Mapping[str, Any]) -> str:
    """SHA-256 of all that a reply depends on: model, messages and settings of a request."""
    text = json.dumps(request, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class ReplyFile:
    """A JSONL file of replies, a line each, appended as they come."""

    def __init__(self, path: Path) -> None:
        """Read what is there; a last line that was cut short is dropped.

        Raises ConfigError where another file lies at `path`.
        """
        self.path = path
        self._replies: dict[str, Reply] = {}
        if path.exists():
            lines = read_text(path, ConfigError, _LIMIT).split("\n")
            for number, line in enumerate(lines, 1):
                self._read(line, number, last=number == len(lines))

    def _read(self, line: str, number: int, *, last: bool) -> None:
        if not line.strip():
            return
        try:
            row = json.loads(line)
            self._replies[row["key"]] = Reply(row["text"], row.get("letters"))
        except (ValueError, KeyError, TypeError):
            if not last:
                raise ConfigError(
                    f"{self.path} line {number} is no reply of an endpoint: name another file for "
                    "verdicts, or remove the line"
                ) from None

    def get(self, key: str) -> Reply | None:
        """The reply to a question; None where it was never asked."""
        return self._replies.get(key)

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Hold the file against other processes while replies are added."""
        with locked_by(self.path.with_name(f".{self.path.name}.lock"), "verdicts"):
            self._end_line()
            yield

    def _end_line(self) -> None:
        """Cut off a line without end, which a killed process left."""
        if not self.path.exists():
            return
        with writing(self.path), self.path.open("r+b") as file:
            data = file.read()
            file.truncate(data.rfind(b"\n") + 1)

    def add(self, key: str, reply: Reply) -> None:
        """Append a reply; it is on its way to the disk when this returns."""
        row: dict[str, Any] = {"key": key, "text": reply.text}
        if reply.letters:
            row["letters"] = dict(reply.letters)
        with (
            writing(self.path),
            self.path.open("a", encoding="utf-8", errors="backslashreplace") as f,
        ):
            f.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._replies[key] = reply
