"""Rows of results: what is taken of a run, and what is asked of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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
