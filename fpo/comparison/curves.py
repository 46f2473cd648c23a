"""The runs of a comparison as one picture."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fpo.comparison.tables import RunResult
from fpo.curves import new_figure, read_log
from fpo_core.loss.metric_catalogue import METRICS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CURVES = ("fpo/raw_accuracy", "fpo/d_margin")
"""Metrics of validation pairs over the steps."""
_POINTS = ("fpo/kl_rejected", "entropy")
"""Measurements at the end, against accuracy."""


def figure_of_runs(logs: Sequence[Path], results: Sequence[RunResult], title: str) -> "Figure":
    """Accuracy and D over the steps (mean over seeds), KL and entropy at the end."""
    from matplotlib.lines import Line2D

    variants = list(dict.fromkeys(result["variant"] for result in results))
    colours = {variant: f"C{number % 10}" for number, variant in enumerate(variants)}
    figure = new_figure(11, 7.5)
    axes = figure.subplots(2, 2)
    for axis, name in zip(axes[0], _CURVES, strict=True):
        for variant, colour in colours.items():
            of_variant = [
                log for log, r in zip(logs, results, strict=True) if r["variant"] == variant
            ]
            axis.plot(
                *_mean_curve(of_variant, f"eval_{name}"), marker="o", markersize=3, color=colour
            )
        axis.set(title=METRICS[name].label, xlabel="step", ylabel=METRICS[name].unit)
    for axis, name in zip(axes[1], _POINTS, strict=True):
        for result in results:
            if result["metrics"].get(name) is not None:
                accuracy = result["metrics"]["raw_accuracy"]["value"]
                axis.plot(accuracy, result["metrics"][name], "o", color=colours[result["variant"]])
        axis.set(title=METRICS[name].label, xlabel="raw accuracy", ylabel=METRICS[name].unit)
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
