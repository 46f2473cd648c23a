"""Showing events while they happen: a live bar on a terminal, plain lines elsewhere."""

import time
from typing import TYPE_CHECKING, Any, Self

from fpo_cli.console.ui import Ui
from fpo_core.events import Event

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SHOWN = {
    "loss": ("loss", "{:.4f}"),
    "rewards/accuracies": ("acc", "{:.2f}"),
    "rewards/margins": ("margin", "{:.3f}"),
    "fpo/d_rejected": ("D", "{:.3g}"),
    "fpo/constraint_ratio": ("constraint", "{:.2g}"),
    "tokens_per_second": ("tok/s", "{:.0f}"),
}
_LABELS = {"reference": "reference", "train": "training"}
_SECONDS_BETWEEN_LINES = 5.0


class ProgressDisplay:
    """A sink of events for people; a context, so that the terminal is left in order."""

    def __init__(self, ui: Ui) -> None:
        self._ui = ui
        self._live = _bar(ui) if ui.err.is_terminal else None
        self._tasks: dict[str, TaskID] = {}
        self._last_line = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if event.kind == "reference":
            self._reference(event.values)
        elif event.kind == "train":
            self._train(event.step, event.values)
        elif event.kind == "eval":
            self._line(f"step {event.step}: validation {describe(event.values, 'eval_')}")
        elif event.kind == "step0":
            self._line(
                f"step-0 check: {event.values['pairs']} pairs, loss within "
                f"{event.values['worst_gap']:.1e} of {event.values['expected_loss']:.4f}"
            )
        elif event.kind == "skipped":
            self._ui.warn(f"step {event.step} skipped: loss {event.values['loss']}")
        elif event.kind == "stopped_early":
            self._line(f"stopped early {event.values['message']}")
        elif event.kind == "warning":
            self._ui.warn(event.values["message"])

    def _reference(self, values: dict[str, Any]) -> None:
        done, total = values["pairs"], values["total"]
        note = f"{values['tokens_per_second']:.0f} tok/s"
        if self._live is None:
            now = time.monotonic()
            if done < total and now - self._last_line < _SECONDS_BETWEEN_LINES:
                return
            self._last_line = now
            note += f", {values['eta_seconds']:.0f} s left"
        self._advance("reference", done, total, note)

    def _train(self, step: int, values: dict[str, Any]) -> None:
        note = f"{describe(values)}, {values['peak_memory'] / 2**20:.0f} MiB"
        self._advance("train", step, values["steps"], note)

    def _advance(self, kind: str, done: int, total: int, note: str) -> None:
        if self._live is None:
            unit = "step" if kind == "train" else "pairs"
            self._line(f"{_LABELS[kind]}: {unit} {done}/{total}, {note}")
            return
        if kind not in self._tasks:
            self._tasks[kind] = self._live.add_task(_LABELS[kind], total=total, note="")
        self._live.update(self._tasks[kind], completed=done, total=total, note=note)

    def _line(self, text: str) -> None:
        self._ui.note(text)


def describe(values: dict[str, Any], prefix: str = "") -> str:
    """The metrics that a person follows, those that are there."""
    found = [
        f"{label} {form.format(values[prefix + name])}"
        for name, (label, form) in _SHOWN.items()
        if values.get(prefix + name) is not None
    ]
    return ", ".join(found)


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
