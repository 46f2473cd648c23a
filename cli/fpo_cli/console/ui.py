"""Where a command speaks: results on stdout, everything on the way on stderr."""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Ui:
    """The voice of a command. Under --json, stdout belongs to the one JSON object."""

    json: bool = False
    quiet: bool = False
    """Whether another process speaks for this one."""

    @cached_property
    def out(self) -> "Console":
        """For results that people read."""
        return self.err if self.json else _console(sys.stdout, self.quiet)

    @cached_property
    def err(self) -> "Console":
        """For progress and remarks."""
        return _console(sys.stderr, self.quiet)

    def say(self, text: Any = "", style: str | None = None) -> None:
        """A line, or anything rich can print, of the result."""
        self.out.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """A remark on the way."""
        self.err.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Something the user should look at."""
        self.err.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)


def _console(file: Any, quiet: bool) -> "Console":
    from rich.console import Console

    return Console(file=file, quiet=quiet)


def to_json(result: Mapping[str, Any]) -> str:
    """The result of a command as JSON text; numbers that are not finite become null."""
    return json.dumps(_plain(result), indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool | int | str | None):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _plain(value.item()) if hasattr(value, "item") else str(value)
