"""Showing events while they happen: a live bar on a terminal, plain lines elsewhere."""

import time
from typing import TYPE_CHECKING, Self

from fpo.sinks import event_text, train_text
from fpo_cli.console.ui import Ui
from fpo_core.events import Event

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SECONDS_BETWEEN_LINES = 5.0


class ProgressDisplay:
    """A sink of events for people; a context, so that the terminal is left in order."""

    def __init__(self, ui: Ui) -> None:
        self._ui = ui
        self._live: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last_line = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if event.kind in ("warning", "skipped"):
            self._ui.warn(str(event_text(event)))
        elif self._ui.err.is_terminal and event.kind in ("reference", "train"):
            self._advance(event)
        elif event.kind == "reference":
            self._reference_line(event)
        elif event.kind == "end":
            self._end()
        elif (text := event_text(event)) is not None:
            self._ui.note(text)

    def _reference_line(self, event: Event) -> None:
        """The pass reports every batch: too often for lines."""
        now = time.monotonic()
        is_last = event.values["pairs"] >= event.values["total"]
        if is_last or now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._ui.note(str(event_text(event)))

    def _advance(self, event: Event) -> None:
        if self._live is None:
            self._live = _bar(self._ui)
            self._live.start()
        values = event.values
        if event.kind == "train":
            label, done, total, note = "training", event.step, values["steps"], train_text(values)
        else:
            label, done, total = "reference", values["pairs"], values["total"]
            note = f"{values['tokens_per_second']:.0f} tok/s"
        if label not in self._tasks:
            self._tasks[label] = self._live.add_task(label, total=total, note="")
        self._live.update(self._tasks[label], completed=done, total=total, note=note)

    def _end(self) -> None:
        """Leave the bars as they are; the next run of a comparison begins new ones."""
        if self._live is not None:
            self._live.stop()
        self._live, self._tasks = None, {}


def _bar(ui: Ui) -> "Progress":
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
        console=ui.err,
    )
