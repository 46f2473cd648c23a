"""One line at the foot of the terminal that is drawn over and over, at any width."""

import contextlib
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import RenderHook
from rich.control import Control
from rich.file_proxy import FileProxy
from rich.segment import ControlType
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleRenderable

_SECONDS_BETWEEN_FRAMES = 0.25


class LiveLine(RenderHook):
    """Keeps `frame(width)`, a line of at most `width` cells, below whatever else is printed.

    rich's own Live display counts the rows of what it drew at the width of that time: after the
    terminal got narrower the line takes more rows, and the first of them would stay for ever.
    """

    def __init__(self, console: "Console", frame: Callable[[int], Text]) -> None:
        self._console, self._frame = console, frame
        self._drawn = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_drawing, daemon=True)
        # A library's warning would otherwise be written into the line.
        proxy: Any = FileProxy(console, sys.stderr)
        self._redirected = contextlib.redirect_stderr(proxy)

    def start(self) -> None:
        """Draw, and go on in a thread: a long step must not look like a halt."""
        self._console.show_cursor(False)
        self._console.push_render_hook(self)
        self._redirected.__enter__()
        self._thread.start()

    def stop(self) -> None:
        """Erase the line."""
        self._ended.set()
        self._thread.join()
        self._redirected.__exit__(None, None, None)
        self._console.pop_render_hook()
        self._console.print(self._erased(), end="")
        self._console.show_cursor(True)

    def draw(self) -> None:
        """Draw the line anew."""
        with self._console:
            self._console.print(Control())

    def process_renderables(
        self, renderables: "list[ConsoleRenderable]"
    ) -> "list[ConsoleRenderable]":
        """Called by rich with what is to be printed: that goes above the line."""
        erased = self._erased()
        # The last column stays free: a terminal that is full to it may begin a new row.
        line = self._frame(self._console.width - 1)
        line.no_wrap, line.end = True, ""
        self._drawn = line.cell_len
        return [erased, *renderables, line]

    def _erased(self) -> Control:
        """Back to the first row of the line, as the terminal wraps it at its width of now."""
        rows = -(-self._drawn // self._console.width)
        erase = (ControlType.ERASE_IN_LINE, 2)
        return Control(
            ControlType.CARRIAGE_RETURN,
            erase,
            *[(ControlType.CURSOR_UP, 1), erase] * (rows - 1),
        )

    def _keep_drawing(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_FRAMES):
            self.draw()
