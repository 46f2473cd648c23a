"""Sinks of events for scripts and notebooks, and the one wording of an event for people."""

import sys
import warnings
from collections.abc import Callable
from typing import Any

from fpo_core.events import Event, Kind
from fpo_core.loss.metric_catalogue import METRICS

_FOLLOWED = (
    "loss",
    "fpo/raw_accuracy",
    "rewards/accuracies",
    "rewards/margins",
    "fpo/d_rejected",
    "fpo/constraint_ratio",
    "tokens_per_second",
)
"""Metrics that a person follows while a run goes on."""


def warnings_only(event: Event) -> None:
    """The sink of a workflow that is given none: warnings become Python's, the rest is silent."""
    if event.kind in ("warning", "skipped"):
        warnings.warn(str(event_text(event)), stacklevel=_callers_level())


def _callers_level() -> int:
    """The `stacklevel` of the line that called into these packages: what a user can change."""
    frame, level = sys._getframe(1), 1
    while frame is not None and frame.f_globals.get("__name__", "").startswith("fpo"):
        frame, level = frame.f_back, level + 1
    return level - 1 if frame is None else level


def print_progress(event: Event) -> None:
    """A sink that writes one plain line per event to stderr."""
    text = event_text(event)
    if text is not None:
        print(text, file=sys.stderr, flush=True)


def event_text(event: Event) -> str | None:
    """An event as a line; None for those that only programs need."""
    line = _LINES.get(event.kind)
    return None if line is None else line(event.step, event.values)


def train_text(values: dict[str, Any]) -> str:
    """The metrics of a training step that a person follows, and its memory."""
    return f"{metrics_text(values)}, {METRICS['peak_memory'].text(values['peak_memory'])} MiB"


def metrics_text(values: dict[str, Any], prefix: str = "") -> str:
    """The metrics that a person follows, those that are there."""
    present = [name for name in _FOLLOWED if values.get(prefix + name) is not None]
    return ", ".join(f"{METRICS[n].short} {METRICS[n].text(values[prefix + n])}" for n in present)


def _reference_text(_: int, values: dict[str, Any]) -> str:
    return (
        f"reference: pairs {values['pairs']}/{values['total']}, "
        f"{values['tokens_per_second']:.0f} tok/s, {values['eta_seconds']:.0f} s left"
    )


def _step0_text(_: int, values: dict[str, Any]) -> str:
    return (
        f"step-0 check: {values['pairs']} pairs, loss within {values['worst_gap']:.1e} of "
        f"{values['expected_loss']:.4f}"
    )


_LINES: dict[Kind, Callable[[int, dict[str, Any]], str]] = {
    "note": lambda _, values: values["message"],
    "warning": lambda _, values: values["message"],
    "reference": _reference_text,
    "step0": _step0_text,
    "train": lambda step, values: f"training: step {step}/{values['steps']}, {train_text(values)}",
    "eval": lambda step, values: f"step {step}: validation {metrics_text(values, 'eval_')}",
    "skipped": lambda step, values: f"step {step} skipped: loss {values['loss']}",
    "stopped_early": lambda _, values: f"stopped early {values['message']}",
}
