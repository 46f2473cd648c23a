"""The curves of a run as a picture."""

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpo_core.io.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = (
    ("Loss", "−log σ(u)", (("train", "loss", "training"), ("eval", "eval_loss", "validation"))),
    (
        "Accuracy on validation pairs",
        "share of pairs",
        (("eval", "eval_fpo/raw_accuracy", "raw"), ("eval", "eval_rewards/accuracies", "reward")),
    ),
    (
        "Feature discrepancy",
        "D (eq. 10)",
        (("eval", "eval_fpo/d_chosen", "chosen"), ("eval", "eval_fpo/d_rejected", "rejected")),
    ),
    (
        "Rewards",
        "β (mean log π − mean log π_ref)",
        (
            ("eval", "eval_rewards/chosen", "chosen"),
            ("eval", "eval_rewards/rejected", "rejected"),
        ),
    ),
)
"""Title, label of the vertical axis, and curves: kind of event, metric, name."""
_COLOURS = ("#1f6fb4", "#d1495b")


def read_log(log: Path) -> list[dict[str, Any]]:
    """The events of a run's JSONL log, less a last line that was cut short."""
    whole, _, _ = log.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.split("\n") if line]


def new_figure(width: float, height: float) -> "Figure":
    """A figure of so many inches that a notebook shows as a picture, and no window."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        # Figures made without pyplot, and so without global state, have no picture of their own.
        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=100)
            return buffer.getvalue()

    return Picture(figsize=(width, height), layout="constrained")


def figure_of_run(log: Path, title: str = "") -> "Figure":
    """Loss, accuracies, D and rewards of a run's JSONL log, one panel each."""
    events = read_log(log)
    figure = new_figure(9, 6)
    axes = figure.subplots(2, 2)
    for axis, (name, label, curves) in zip(axes.flat, _PANELS, strict=True):
        for colour, (kind, metric, curve) in zip(_COLOURS, curves, strict=True):
            _draw(axis, events, kind, metric, curve, colour)
        axis.set(title=name, xlabel="step", ylabel=label)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(frameon=False)
    axes[0, 1].set_ylim(0, 1.05)
    figure.suptitle(title)
    return figure


def draw_curves(log: Path, out: Path, title: str = "") -> None:
    """Write `figure_of_run` as a PNG; a link under that name is replaced, not followed."""
    with replacing(out) as temporary:
        figure_of_run(log, title).savefig(temporary, format="png", dpi=130)


_SAE_PANELS = (
    ("Unexplained variance", "share", "fvu"),
    ("Active features", "per token", "l0"),
    ("Dead features", "share", "dead_share"),
)


def figure_of_sae(log: Path, title: str = "") -> "Figure":
    """Loss, active and dead features of an autoencoder's training, a curve for each hook."""
    events = [event for event in read_log(log) if event["kind"] == "sae"]
    figure = new_figure(10, 3.2)
    for axis, (name, label, key) in zip(figure.subplots(1, 3), _SAE_PANELS, strict=True):
        for hook in events[-1]["hooks"] if events else ():
            points = [(event["step"], event["hooks"][hook][key]) for event in events]
            axis.plot(*zip(*points, strict=True), label=hook)
        axis.set(title=name, xlabel="step", ylabel=label, ylim=(0, None))
        axis.grid(alpha=0.3)
        if events and key == "dead_share":
            axis.legend(frameon=False)
    figure.suptitle(title)
    return figure


def draw_sae_curves(log: Path, out: Path, title: str = "") -> None:
    """Write `figure_of_sae` as a PNG."""
    with replacing(out) as temporary:
        figure_of_sae(log, title).savefig(temporary, format="png", dpi=130)


def _draw(
    axis: Any, events: list[dict[str, Any]], kind: str, metric: str, name: str, colour: str
) -> None:
    points = [(e["step"], e[metric]) for e in events if e["kind"] == kind and metric in e]
    if points:
        steps, values = zip(*points, strict=True)
        axis.plot(steps, values, marker="o", markersize=3, color=colour, label=name)
