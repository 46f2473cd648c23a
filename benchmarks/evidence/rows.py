"""Rows of results: what is taken of a run, and what is asked of it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import RESULTS, measured_with

Row = dict[str, Any]
"""A run: `arm`, `change`, `seed`, metrics, and `samples` with `p` and `failed` of each."""

_METRICS = {
    "margin": "rewards/margins",
    "kl_chosen": "fpo/kl_chosen",
    "kl_rejected": "fpo/kl_rejected",
    "d_chosen": "fpo/d_chosen",
    "d_rejected": "fpo/d_rejected",
    "chosen_tokens": "chosen_tokens",
    "perplexity": "perplexity",
    "entropy": "entropy",
    "distinct_2": "distinct_2",
    "length": "sample_length",
}


def rows_file(ground: str) -> Path:
    """The committed rows of a ground: what they were measured with, then a row a line."""
    return RESULTS / f"evidence-{ground}.jsonl"


def read_rows(ground: str) -> dict[str, list[Row]]:
    """The committed rows of a ground, by stage."""
    rows: dict[str, list[Row]] = {}
    path = rows_file(ground)
    lines = path.read_text(encoding="utf-8").splitlines()[1:] if path.is_file() else []
    for row in map(json.loads, lines):
        rows.setdefault(row.pop("stage"), []).append(row)
    return rows


def write_rows(ground: str, rows: Mapping[str, Sequence[Row]]) -> None:
    """Commit rows by stage in place of those that are there."""
    lines = [measured_with(), *({"stage": s} | row for s, of in rows.items() for row in of)]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    rows_file(ground).write_text(text, encoding="utf-8")


def metrics_of(metrics: Mapping[str, Any], result: Mapping[str, Any]) -> Row:
    """Metrics of a run's end, or of the start, where `result` is empty."""
    row: Row = {"raw_accuracy": metrics["raw_accuracy"]["value"]}
    row |= {name: metrics[key] for name, key in _METRICS.items() if key in metrics}
    row |= {k: result[k] for k in ("constraint_share", "seconds_per_step") if k in result}
    return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()}


def scores(row: Row) -> np.ndarray:
    """P·I of each sample, (n,): its preference, 0 where a check failed."""
    return np.array([0.0 if sample["failed"] else sample["p"] for sample in row["samples"]])


def mean_score(row: Row) -> float:
    """The mean of P·I."""
    return float(scores(row).mean())


def mean_preference(row: Row) -> float:
    """The mean of P."""
    return float(np.mean([sample["p"] for sample in row["samples"]]))


def mean_intact(row: Row) -> float:
    """The share of samples that pass every check."""
    return float(np.mean([not sample["failed"] for sample in row["samples"]]))


def kl_per_token(row: Row) -> float:
    """Sequential KL per token of held-out chosen replies, in nats; 0 of the start."""
    return row.get("kl_chosen", 0.0) / row["chosen_tokens"]


def of_arm(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows of an arm, by seed."""
    return sorted((row for row in rows if row["arm"] == name), key=lambda row: row["seed"])


def same_run(row: Row, other: Row) -> bool:
    """Whether two rows are of one run."""
    return all(row[name] == other[name] for name in ("arm", "change", "seed"))
