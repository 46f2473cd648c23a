"""Dividing the rows of one data file among simulated clients, evenly or by a column's values."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fpo_core.data.files import read_rows
from fpo_core.errors import ConfigError, DataError
from fpo_core.io.atomic import write_atomically


def parse_partition(text: str) -> float | None:
    """The concentration of `dirichlet:A`, or None for `even`; ConfigError for anything else."""
    if text == "even":
        return None
    name, _, value = text.partition(":")
    try:
        alpha = float(value)
    except ValueError:
        alpha = 0.0
    if name != "dirichlet" or not 0 < alpha < float("inf"):
        raise ConfigError(
            f"partition is {text!r}, expected even, or dirichlet:A with a number A above 0"
        )
    return alpha


def divide(
    labels: Sequence[Any] | None, rows: int, clients: int, alpha: float | None, seed: int
) -> list[np.ndarray]:
    """The row numbers (from 0) of each client; every row goes to one of them.

    Rows of a label are divided by shares drawn from a Dirichlet distribution of concentration
    `alpha` (Hsu et al., arXiv 1909.06335), small ones making clients differ; without `alpha`, at
    random and evenly. Raises DataError where a client would get nothing.
    """
    generator = np.random.default_rng([seed, clients])
    keys = (
        np.zeros(rows, int) if labels is None else np.unique(_texts(labels), return_inverse=True)[1]
    )
    parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
    for key in range(int(keys.max()) + 1 if rows else 0):
        members = generator.permutation(np.flatnonzero(keys == key))
        even = np.full(clients, 1 / clients)
        shares = even if alpha is None else generator.dirichlet(np.full(clients, alpha))
        ends = np.round(np.cumsum(shares)[:-1] * len(members)).astype(int)
        for part, chosen in zip(parts, np.split(members, ends), strict=True):
            part.append(chosen)
    divided = [np.sort(np.concatenate(part)) if part else np.zeros(0, int) for part in parts]
    empty = [number for number, part in enumerate(divided) if not len(part)]
    if empty:
        raise DataError(
            f"client {empty[0]} of {clients} would get none of {rows} rows: take fewer clients, a "
            "larger concentration, or another seed"
        )
    return divided


def _texts(labels: Sequence[Any]) -> list[str]:
    return [json.dumps(label, sort_keys=True) for label in labels]


def write_partition(
    source: Path, folder: Path, clients: int, alpha: float | None, by: str | None, seed: int
) -> list[Path]:
    """Divide a data file: `folder`/client-0.jsonl and so on. Raises DataError where `by` is no
    column of a row.
    """
    rows = [row for _, row in read_rows(source)]
    labels = None
    if by is not None:
        absent = next((n for n, row in enumerate(rows, 1) if by not in row), None)
        if absent is not None:
            known = ", ".join(map(str, rows[absent - 1]))
            raise DataError(f"by is {by!r}, but row {absent} of {source} has the columns {known}")
        labels = [row[by] for row in rows]
    files = []
    for number, part in enumerate(divide(labels, len(rows), clients, alpha, seed)):
        text = "".join(json.dumps(rows[row], ensure_ascii=False) + "\n" for row in part)
        files.append(folder / f"client-{number}.jsonl")
        write_atomically(files[-1], lambda path, text=text: path.write_text(text, encoding="utf-8"))
    return files
