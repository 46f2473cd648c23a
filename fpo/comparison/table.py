"""The results of a comparison as tables: mean and spread over seeds."""

import csv
import io
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Result = dict[str, Any]


def _metric(name: str) -> Callable[[Result], float | None]:
    return lambda result: result["metrics"].get(name)


def _accuracy(name: str) -> Callable[[Result], float]:
    return lambda result: result["metrics"][name]["value"]


@dataclass(frozen=True)
class Column:
    """A measurement: its name in CSV and JSON, its head and form for people."""

    name: str
    head: str
    form: str
    read: Callable[[Result], float | None]


COLUMNS = (
    Column("raw_accuracy", "raw acc", ".3f", _accuracy("raw_accuracy")),
    Column("reward_accuracy", "reward acc", ".3f", _accuracy("reward_accuracy")),
    Column("oracle", "oracle", ".3f", _metric("oracle")),
    Column("entropy", "entropy", ".3f", _metric("entropy")),
    Column("distinct_2", "distinct-2", ".3f", _metric("distinct_2")),
    Column("kl_chosen", "KL chosen", ".3g", _metric("fpo/kl_chosen")),
    Column("kl_rejected", "KL rejected", ".3g", _metric("fpo/kl_rejected")),
    Column("kl_margin", "KL margin", ".3g", _metric("fpo/kl_margin")),
    Column("d_chosen", "D chosen", ".3g", _metric("fpo/d_chosen")),
    Column("d_rejected", "D rejected", ".3g", _metric("fpo/d_rejected")),
    Column("d_margin", "D margin", ".3g", _metric("fpo/d_margin")),
    Column("perplexity", "perplexity", ".3f", _metric("perplexity")),
    Column("sample_length", "length", ".1f", _metric("sample_length")),
    Column("seconds_per_step", "s/step", ".3f", lambda result: result.get("seconds_per_step")),
    Column("peak_memory", "MiB", ".0f", lambda result: _mib(result.get("peak_memory"))),
)


def _mib(size: float | None) -> float | None:
    return None if size is None else size / 2**20


def rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """A row per variant: the mean of each column over seeds and its standard deviation.

    The deviation is that of a sample (n − 1), None for one seed.
    """
    variants: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        variants[result["variant"]].append(result)
    return [_row(variant, found) for variant, found in variants.items()]


def _row(variant: str, results: list[Result]) -> dict[str, Any]:
    row: dict[str, Any] = {"variant": variant, "seeds": len(results)}
    for column in COLUMNS:
        values = [value for value in map(column.read, results) if value is not None]
        if values:
            spread = statistics.stdev(values) if len(values) > 1 else None
            row[column.name] = statistics.fmean(values)
            row[f"{column.name}_spread"] = spread
    return row


def markdown(table: list[dict[str, Any]], start: Result | None = None) -> str:
    """The rows as a Markdown table, the starting model's first where it is given."""
    every = ([{"variant": "start", "seeds": ""} | _plain(start)] if start else []) + table
    columns = [column for column in COLUMNS if any(column.name in row for row in every)]
    lines = [
        "| " + " | ".join(["", "seeds", *(column.head for column in columns)]) + " |",
        "|---|---|" + "---:|" * len(columns),
    ]
    for row in every:
        cells = [row["variant"], str(row["seeds"]), *(_cell(row, column) for column in columns)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _plain(result: Result) -> dict[str, Any]:
    read = {column.name: column.read(result) for column in COLUMNS}
    return {name: value for name, value in read.items() if value is not None}


def _cell(row: dict[str, Any], column: Column) -> str:
    if column.name not in row:
        return "–"
    spread = row.get(f"{column.name}_spread")
    behind = "" if spread is None else f" ± {spread:{column.form.replace('.3g', '.2g')}}"
    return f"{row[column.name]:{column.form}}{behind}"


def as_csv(table: list[dict[str, Any]]) -> str:
    """The rows as comma-separated values."""
    names = ["variant", "seeds"]
    for column in COLUMNS:
        names += [column.name, f"{column.name}_spread"]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()
