"""The runs of a comparison as one picture."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fpo.comparison.tables import RunResult
from fpo.curves import new_figure, read_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CURVES = (
    ("Raw accuracy on validation pairs", "share of pairs", "eval_fpo/raw_accuracy"),
    ("Feature discrepancy, rejected − chosen", "D (eq. 10)", "eval_fpo/d_margin"),
)
_POINTS = (
    ("Drift against accuracy, at the end", "sequential KL, rejected (nats)", "fpo/kl_rejected"),
    ("Diversity against accuracy, at the end", "entropy of samples (nats)", "entropy"),
)


def figure_of_runs(logs: Sequence[Path], results: Sequence[RunResult], title: str) -> "Figure":
    """Accuracy and D over the steps (mean over seeds), KL and entropy at the end."""
    from matplotlib.lines import Line2D

    variants = list(dict.fromkeys(result["variant"] for result in results))
    colours = {variant: f"C{number % 10}" for number, variant in enumerate(variants)}
    figure = new_figure(11, 7.5)
    axes = figure.subplots(2, 2)
    for axis, (name, label, metric) in zip(axes[0], _CURVES, strict=True):
        for variant, colour in colours.items():
            of_variant = [
                log for log, r in zip(logs, results, strict=True) if r["variant"] == variant
            ]
            axis.plot(*_mean_curve(of_variant, metric), marker="o", markersize=3, color=colour)
        axis.set(title=name, xlabel="step", ylabel=label)
    for axis, (name, label, metric) in zip(axes[1], _POINTS, strict=True):
        for result in results:
            if result["metrics"].get(metric) is not None:
                accuracy = result["metrics"]["raw_accuracy"]["value"]
                axis.plot(
                    accuracy, result["metrics"][metric], "o", color=colours[result["variant"]]
                )
        axis.set(title=name, xlabel="raw accuracy", ylabel=label)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    handles = [Line2D([], [], color=c, marker="o", label=v) for v, c in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(title)
    return figure


def _mean_curve(logs: Sequence[Path], metric: str) -> tuple[list[int], list[float]]:
    """Steps, and the mean over logs of a validation metric there."""
    at: dict[int, list[float]] = defaultdict(list)
    for log in logs:
        for event in read_log(log):
            if event["kind"] == "eval" and event.get(metric) is not None:
                at[event["step"]].append(event[metric])
    steps = sorted(at)
    return steps, [sum(at[step]) / len(at[step]) for step in steps]
