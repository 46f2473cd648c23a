"""Showing events while they happen: a live line on a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from fpo.sinks import event_text, sae_parts, train_parts
from fpo_cli.console.output import Output
from fpo_core.events import Event

if TYPE_CHECKING:
    from rich.text import Text

    from fpo_cli.console.live_line import LiveLine

_SECONDS_BETWEEN_LINES = 5.0
_SILENCE = 2.0
"""Seconds without an event after which a terminal is told what goes on."""
_BAR = 16


@dataclass
class Task:
    """Something that goes on, in units of which `total` are to be done."""

    label: str
    total: int
    done: int
    metrics: Sequence[str] = ()
    """By importance: the last ones are left out where a terminal is narrow."""
    first: int = field(init=False)
    begun: float = field(init=False)
    updated: float = field(init=False)

    def __post_init__(self) -> None:
        self.first, self.begun = self.done, time.monotonic()
        self.updated = self.begun

    def update(self, done: int, metrics: Sequence[str] | None) -> None:
        """Take note of what is done by now; without `metrics`, the last ones stay."""
        self.done, self.updated = done, time.monotonic()
        self.metrics = self.metrics if metrics is None else metrics

    def left(self, now: float) -> float | None:
        """Seconds to the end at the mean pace so far; None before there is one."""
        if self.done == self.first:
            return None
        pace = (self.updated - self.begun) / (self.done - self.first)
        return max(0.0, pace * (self.total - self.done) - (now - self.updated))


def task_line(task: Task, width: int, now: float) -> "Text":
    """A task in at most `width` cells: its count, a bar, the time left, then metrics that fit."""
    from rich.text import Text

    left = task.left(now)
    head = f"{task.label} {task.done}/{task.total} "
    tail = f" {'-:--' if left is None else _clock(left)} left"
    cells = min(_BAR, width - len(head) - len(tail))
    filled = round(cells * task.done / max(1, task.total))
    line = Text(head)
    if cells > 1:
        # Its tip moves every second: a long step is at work, not hung.
        tip = "━╸"[int(now) % 2] if filled else ""
        line.append("━" * (filled - 1) + tip, "cyan")
        line.append("━" * (cells - filled), "bright_black")
    line.append(tail)
    for i, metric in enumerate(task.metrics):
        part = ("  " if i == 0 else ", ") + metric
        if line.cell_len + len(part) > width:
            break
        line.append(part, "dim")
    line.truncate(width)
    return line


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class ProgressDisplay:
    """A sink of events for people; a context, so that the terminal is left in order."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._live: LiveLine | None = None
        self._tasks: dict[str, Task] = {}
        self._note = "loading"
        self._since = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        console = self._output.err
        if console.is_terminal and not console.is_dumb_terminal and not console.quiet:
            from fpo_cli.console.live_line import LiveLine

            self._live = LiveLine(console, self._frame)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        self._since = time.monotonic()
        if event.kind in ("warning", "skipped"):
            self._output.warn(str(event_text(event)))
        elif event.kind in ("reference", "train", "sae", "progress"):
            self._advance(event)
        elif event.kind == "end":
            self._end()
        elif (text := event_text(event)) is not None:
            self._note = text
            self._output.note(text)

    def _advance(self, event: Event) -> None:
        values = event.values
        if self._live is None:
            self._line(event)
        elif event.kind == "train":
            self._update("training", event.step, values["steps"], train_parts(values))
        elif event.kind == "sae":
            self._update("training", event.step, values["steps"], sae_parts(values))
        elif event.kind == "reference":
            speed = [f"{values['tokens_per_second']:.0f} tok/s"]
            self._update("reference", values["pairs"], values["total"], speed)
        else:
            self._update(values["label"], values["done"], values["total"])

    def _line(self, event: Event) -> None:
        """A plain line for a report; what comes with every batch is too often for lines."""
        now = time.monotonic()
        total = event.values.get("total")
        is_last = event.kind == "reference" and event.values["pairs"] >= total
        if (
            event.kind in ("train", "sae")
            or is_last
            or now - self._last_line >= _SECONDS_BETWEEN_LINES
        ):
            self._last_line = now
            self._output.note(str(event_text(event)))

    def _update(
        self, label: str, done: int, total: int, metrics: Sequence[str] | None = None
    ) -> None:
        task = self._tasks.pop(label, None) or Task(label, total, done, metrics or ())
        task.update(done, metrics)
        # The newest is last, and shown; training goes on behind a validation.
        self._tasks[label] = task
        if done >= total and label != "training":
            self._leave(label)

    def _leave(self, label: str) -> None:
        """End a task; those that took long enough to be watched stay as a line."""
        task = self._tasks.pop(label)
        if label in ("training", "reference"):
            self._output.err.print(task_line(task, self._output.err.width - 1, time.monotonic()))
        self._note = f"after {label}"

    def _end(self) -> None:
        """Leave the lines as they are; the next run of a comparison begins new ones."""
        while self._tasks:
            self._leave(next(reversed(self._tasks)))

    def _frame(self, width: int) -> "Text":
        from rich.text import Text

        now = time.monotonic()
        if self._tasks:
            return task_line(next(reversed(self._tasks.values())), width, now)
        if now - self._since < _SILENCE:
            return Text("")
        waited = f" {_clock(now - self._since)}"
        line = Text(self._note, "dim")
        line.truncate(width - len(waited), overflow="ellipsis")
        return line.append(waited, "dim")
