"""Ctrl-C and SIGTERM as a wish that a run hears between two steps."""

import contextlib
import signal
from types import FrameType
from typing import Any, Self

from fpo_cli.console.output import Output
from fpo_core.events import Event

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """A sink of events that holds back signals while a run takes steps.

    From `begin` to `end`, the first signal is remembered for `asked` and a second one interrupts;
    at any other time signals do what they do by default.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._asked: int | None = None
        self._patient = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def asked(self) -> int | None:
        """The number of the signal that asked for an end; None where none did."""
        return self._asked

    def __call__(self, event: Event) -> None:
        """Take signals over at `begin`, give them back at `end`."""
        if event.kind == "begin":
            # Each of several processes gets a signal twice, from the terminal and its launcher.
            self._patient = event.values["processes"] > 1
            for number in _SIGNALS:
                with contextlib.suppress(ValueError):  # not the main thread: signals go elsewhere
                    self._before[number] = signal.signal(number, self._hear)
        elif event.kind == "end":
            self._restore()

    def _hear(self, number: int, _: FrameType | None) -> None:
        if self._asked is None:
            self._asked = number
            self._output.note(
                "stopping after this step, with a checkpoint; once more stops at once"
            )
        elif not self._patient:
            raise KeyboardInterrupt

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)
