"""What a run reports while it goes on: events, and the log that keeps them."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fpo_core.io.atomic import writing

Kind = Literal[
    "note",
    "progress",
    "text",
    "begin",
    "reference",
    "step0",
    "train",
    "sae",
    "eval",
    "constraint",
    "pool",
    "skipped",
    "checkpoint",
    "warning",
    "stopped_early",
    "done",
    "end",
]
"""`progress` tells how much of something long is done, and no log keeps it; `text` is a piece of a
completion as it is sampled. `pool` is of the fresh pairs of an online run. `sae` is a report of an
autoencoder's training. `begin` and `end` enclose the steps of a run in every process; the first
process alone reports what happens between them."""


@dataclass(frozen=True)
class Event:
    """One thing that happened: its kind, the optimiser step, and values by metric name."""

    kind: Kind
    step: int
    values: dict[str, Any] = field(default_factory=dict)


Sink = Callable[[Event], None]
"""A consumer of events: a log file, a progress bar, an experiment tracker."""


def fan_out(*sinks: Sink) -> Sink:
    """One sink that passes each event to all."""

    def emit(event: Event) -> None:
        for sink in sinks:
            sink(event)

    return emit


def silent(event: Event) -> None:
    """A sink that drops every event."""


def note(sink: Sink, text: str) -> None:
    """Emit a remark for people, before or after the steps of a run."""
    sink(Event("note", 0, {"message": text}))


def warn(sink: Sink, text: str) -> None:
    """Emit something that the user should look at."""
    sink(Event("warning", 0, {"message": text}))


def progress(sink: Sink, label: str, done: int, total: int, step: int = 0) -> None:
    """Emit how much of something that takes a while is done."""
    sink(Event("progress", step, {"label": label, "done": done, "total": total}))


class JsonlLog:
    """Appends events to a file, one JSON object a line, flushed at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path

    def __call__(self, event: Event) -> None:
        """Write one line."""
        if event.kind == "progress":
            return
        line = {"kind": event.kind, "step": event.step} | event.values
        # Opened for each line: a killed run loses none, and a resumed one may cut the file.
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
