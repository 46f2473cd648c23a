"""Where a command speaks: results on stdout, everything on the way on stderr."""

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fpo_core.io.foreign_text import for_terminal, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from fpo.results import Table

_WIDE = 72
"""Columns of a terminal from which on two texts stand side by side."""


@dataclass(frozen=True)
class Output:
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
        """A line, or anything rich can print, of the result; control characters as escapes."""
        text = for_terminal(text) if isinstance(text, str) else text
        self.out.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def piece(self, text: str) -> None:
        """A part of the result that more will follow on its line."""
        self.out.out(for_terminal(text), end="", highlight=False)

    def side_by_side(self, texts: "Sequence[tuple[str, str]]") -> None:
        """Texts under their titles, side by side where the terminal is wide enough."""
        from rich.table import Table as Columns
        from rich.text import Text

        if self.out.width < _WIDE:
            for title, text in texts:
                self.say(title, "bold")
                self.say(text)
            return
        columns = Columns(expand=True)
        for title, _ in texts:
            columns.add_column(Text(one_line(title)), ratio=1, overflow="fold")
        columns.add_row(*(Text(for_terminal(text)) for _, text in texts))
        self.out.print(columns)

    def note(self, text: str, style: str = "dim") -> None:
        """A remark on the way."""
        self.err.print(
            for_terminal(text), style=style, markup=False, highlight=False, soft_wrap=True
        )

    def warn(self, text: str) -> None:
        """Something the user should look at."""
        self.err.print(f"warning: {one_line(text)}", style="yellow", markup=False, soft_wrap=True)

    def table(self, table: "Table", *, numbers: bool = True) -> None:
        """A table under its head, columns of `numbers` to the right, never cut to the terminal."""
        rows = [[one_line(cell) for cell in row] for row in (table.head, *table.rows)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for i, row in enumerate(rows):
            cells = [
                cell.rjust(width) if numbers and column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            self.say("  ".join(cells).rstrip(), None if i else "bold")


def _console(file: Any, quiet: bool) -> "Console":
    from rich.console import Console

    # Else rich writes 🐶 for :dog:, in paths, commands and what a model said.
    return Console(file=file, quiet=quiet, emoji=False)
