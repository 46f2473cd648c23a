"""Ctrl-C and SIGTERM as a wish that a run hears between two steps."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from fpo_cli.console.ui import Ui

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stop_signals(ui: Ui, *, patient: bool) -> Iterator[Callable[[], int | None]]:
    """Within, the first signal is kept for the function this yields; a second one interrupts.

    A `patient` process hears each signal twice, from the terminal and from its launcher.
    """
    asked: list[int] = []

    def hear(number: int, _: FrameType | None) -> None:
        if not asked:
            asked.append(number)
            ui.note("stopping after this step, with a checkpoint; once more stops at once")
        elif not patient:
            raise KeyboardInterrupt

    before: dict[signal.Signals, Any] = {}
    for each in _SIGNALS:
        with contextlib.suppress(ValueError):  # not the main thread: signals go elsewhere
            before[each] = signal.signal(each, hear)
    try:
        yield lambda: asked[0] if asked else None
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
