"""The results of a comparison as tables: mean and spread over seeds."""

import csv
import io
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from fpo.results import Table
from fpo_core.loss.metric_catalogue import METRICS, Metric

RunResult = dict[str, Any]
"""What a run came to: its settings, what was measured, what it cost."""
COLUMNS = {
    "raw_accuracy": METRICS["raw_accuracy"],
    "reward_accuracy": METRICS["reward_accuracy"],
    "oracle": METRICS["oracle"],
    "judge_score": METRICS["judge_score"],
    "win_rate": METRICS["win_rate"],
    "win_rate_controlled": METRICS["win_rate_controlled"],
    "entropy": METRICS["entropy"],
    "distinct_2": METRICS["distinct_2"],
    "kl_chosen": METRICS["fpo/kl_chosen"],
    "kl_rejected": METRICS["fpo/kl_rejected"],
    "kl_margin": METRICS["fpo/kl_margin"],
    "d_chosen": METRICS["fpo/d_chosen"],
    "d_rejected": METRICS["fpo/d_rejected"],
    "d_margin": METRICS["fpo/d_margin"],
    "perplexity": METRICS["perplexity"],
    "sample_length": METRICS["sample_length"],
    "seconds_per_step": METRICS["seconds_per_step"],
    "peak_memory": METRICS["peak_memory"],
}
"""Each column's name in CSV and JSON, and the metric in it."""


def _value(result: RunResult, metric: Metric) -> float | None:
    """A metric of a run in its unit. Accuracies carry an interval; costs are not measurements."""
    value = result["metrics"].get(metric.name, result.get(metric.name))
    value = value["value"] if isinstance(value, dict) else value
    return None if value is None else value / metric.per_unit


def rows(results: Sequence[RunResult]) -> list[dict[str, Any]]:
    """A row per variant: the mean of each column over seeds and its standard deviation.

    The deviation is that of a sample (n − 1), None for one seed.
    """
    variants: dict[str, list[RunResult]] = defaultdict(list)
    for result in results:
        variants[result["variant"]].append(result)
    return [_row(variant, of_variant) for variant, of_variant in variants.items()]


def _row(variant: str, results: list[RunResult]) -> dict[str, Any]:
    row: dict[str, Any] = {"variant": variant, "seeds": len(results)}
    for name, metric in COLUMNS.items():
        values = [v for v in (_value(result, metric) for result in results) if v is not None]
        if values:
            row[name] = statistics.fmean(values)
            row[f"{name}_spread"] = statistics.stdev(values) if len(values) > 1 else None
    return row


def table(rows: Sequence[dict[str, Any]], start: RunResult | None = None) -> Table:
    """The rows as text, the starting model's first where it is passed; empty columns left out."""
    first = [] if start is None else [{"variant": "start", "seeds": ""} | _of_start(start)]
    every = [*first, *rows]
    present = [name for name in COLUMNS if any(name in row for row in every)]
    cells = [
        (row["variant"], str(row["seeds"]), *(_cell(row, name) for name in present))
        for row in every
    ]
    return Table(("", "seeds", *(COLUMNS[name].short for name in present)), cells)


def markdown(rows: Sequence[dict[str, Any]], start: RunResult | None = None) -> str:
    """`table` as Markdown."""
    text = table(rows, start)
    rule = "|---|---|" + "---:|" * (len(text.head) - 2)
    head, *lines = ("| " + " | ".join(cells) + " |" for cells in (text.head, *text.rows))
    return "\n".join([head, rule, *lines]) + "\n"


def _of_start(result: RunResult) -> dict[str, Any]:
    values = {name: _value(result, metric) for name, metric in COLUMNS.items()}
    return {name: value for name, value in values.items() if value is not None}


def _cell(row: dict[str, Any], name: str) -> str:
    if name not in row:
        return "–"
    form = COLUMNS[name].format
    spread = row.get(f"{name}_spread")
    # A spread is known less well than its mean: a digit fewer.
    deviation = "" if spread is None else f" ± {spread:{form.replace('.3g', '.2g')}}"
    return f"{row[name]:{form}}{deviation}"


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as comma-separated values."""
    names = ["variant", "seeds"]
    for name in COLUMNS:
        names += [name, f"{name}_spread"]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
