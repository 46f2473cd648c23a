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
    """A sink that writes one plain line per event to stderr, less those of every batch."""
    text = event_text(event)
    if text is not None and event.kind != "progress":
        print(text, file=sys.stderr, flush=True)


def event_text(event: Event) -> str | None:
    """An event as a line; None for those that only programs need."""
    line = _LINES.get(event.kind)
    return None if line is None else line(event.step, event.values)


def train_parts(values: dict[str, Any]) -> list[str]:
    """The metrics of a training step that a person follows, by importance, and its memory."""
    memory = METRICS["peak_memory"]
    return [*_metrics(values), f"{memory.text(values['peak_memory'])} {memory.unit}"]


def sae_parts(values: dict[str, Any]) -> list[str]:
    """What a person follows of an autoencoder's training, of each hook where there are several."""
    hooks, parts = values["hooks"], []
    for hook, measured in hooks.items():
        parts += [f"{hook} "[: None if len(hooks) > 1 else 0] + f"FVU {measured['fvu']:.3f}"]
        parts += [f"L0 {measured['l0']:.0f}", f"dead {measured['dead_share']:.1%}"]
    return [*parts, f"{values['tokens_per_second']:.0f} tok/s"]


def _metrics(values: dict[str, Any], prefix: str = "") -> list[str]:
    """The metrics that a person follows, those that are there."""
    present = [name for name in _FOLLOWED if values.get(prefix + name) is not None]
    return [f"{METRICS[n].short} {METRICS[n].text(values[prefix + n])}" for n in present]


def _reference_text(_: int, values: dict[str, Any]) -> str:
    return (
        f"reference: pairs {values['pairs']}/{values['total']}, "
        f"{values['tokens_per_second']:.0f} tok/s, {values['eta_seconds']:.0f} s left"
    )


def _constraint_text(step: int, values: dict[str, Any]) -> str:
    share, alpha = (METRICS[n].text(values[n]) for n in ("fpo/constraint_share", "fpo/alpha"))
    below = "; D is below the floor of this precision" if values["below_floor"] else ""
    weight = f"the constraint's gradient is {share} of the preference's"
    return f"step {step}: {weight}, alpha {alpha}{below}"


def _pool_text(step: int, values: dict[str, Any]) -> str:
    kinds = ("sampling", "judging", "scoring", "training")
    seconds = ", ".join(f"{kind} {values[f'{kind}_seconds']:.1f} s" for kind in kinds)
    left = ", ".join(
        f"{values[n]} {n.replace('_', ' ')}" for n in ("tied", "no_verdict") if n in values
    )
    return f"step {step}: {values['pairs']} fresh pairs of {values['wanted']} ({left}); {seconds}"


def _step0_text(_: int, values: dict[str, Any]) -> str:
    return (
        f"step-0 check: {values['pairs']} pairs, loss within {values['worst_gap']:.1e} of "
        f"{values['expected_loss']:.4f}"
    )


_LINES: dict[Kind, Callable[[int, dict[str, Any]], str]] = {
    "note": lambda _, values: values["message"],
    "progress": lambda _, values: f"{values['label']} {values['done']}/{values['total']}",
    "warning": lambda _, values: values["message"],
    "reference": _reference_text,
    "step0": _step0_text,
    "train": lambda step, values: (
        f"training: step {step}/{values['steps']}, {', '.join(train_parts(values))}"
    ),
    "sae": lambda step, values: (
        f"training: step {step}/{values['steps']}, {', '.join(sae_parts(values))}, "
        f"{values['eta_seconds']:.0f} s left"
    ),
    "eval": lambda step, values: f"step {step}: validation {', '.join(_metrics(values, 'eval_'))}",
    "constraint": _constraint_text,
    "pool": _pool_text,
    "skipped": lambda step, values: f"step {step} skipped: loss {values['loss']}",
    "stopped_early": lambda _, values: f"stopped early {values['message']}",
}
