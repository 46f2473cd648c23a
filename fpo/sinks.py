"""Sinks of events for scripts and notebooks, and the one wording of an event for people."""

import sys
import warnings
from typing import Any

from fpo_core.events import Event

_METRICS = {
    "loss": ("loss", "{:.4f}"),
    "rewards/accuracies": ("acc", "{:.2f}"),
    "rewards/margins": ("margin", "{:.3f}"),
    "fpo/d_rejected": ("D", "{:.3g}"),
    "fpo/constraint_ratio": ("constraint", "{:.2g}"),
    "tokens_per_second": ("tok/s", "{:.0f}"),
}


def warnings_only(event: Event) -> None:
    """The sink of a workflow that is given none: warnings become Python's, the rest is silent."""
    if event.kind in ("warning", "skipped"):
        warnings.warn(str(event_text(event)), stacklevel=2)


def print_progress(event: Event) -> None:
    """A sink that writes one plain line per event to stderr."""
    text = event_text(event)
    if text is not None:
        print(text, file=sys.stderr, flush=True)


def event_text(event: Event) -> str | None:
    """An event as a line; None for those that only programs need."""
    values = event.values
    match event.kind:
        case "note" | "warning":
            return values["message"]
        case "reference":
            return (
                f"reference: pairs {values['pairs']}/{values['total']}, "
                f"{values['tokens_per_second']:.0f} tok/s, {values['eta_seconds']:.0f} s left"
            )
        case "train":
            return f"training: step {event.step}/{values['steps']}, {train_text(values)}"
        case "eval":
            return f"step {event.step}: validation {metrics_text(values, 'eval_')}"
        case "step0":
            return (
                f"step-0 check: {values['pairs']} pairs, loss within {values['worst_gap']:.1e} of "
                f"{values['expected_loss']:.4f}"
            )
        case "skipped":
            return f"step {event.step} skipped: loss {values['loss']}"
        case "stopped_early":
            return f"stopped early {values['message']}"
    return None


def train_text(values: dict[str, Any]) -> str:
    """The metrics of a training step that a person follows, and its memory."""
    return f"{metrics_text(values)}, {values['peak_memory'] / 2**20:.0f} MiB"


def metrics_text(values: dict[str, Any], prefix: str = "") -> str:
    """The metrics that a person follows, those that are there."""
    present = [
        f"{label} {form.format(values[prefix + name])}"
        for name, (label, form) in _METRICS.items()
        if values.get(prefix + name) is not None
    ]
    return ", ".join(present)
