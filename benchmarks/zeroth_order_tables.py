"""The tables of docs/zeroth-order.md, from results/zeroth_order.json.

Run: python -m benchmarks.zeroth_order_tables, which writes them between their marks.
"""

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import pages
from benchmarks.record import ROOT, read_result

PAGE = ROOT / "docs" / "zeroth-order.md"
Part = dict[str, Any]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def drift(part: Part) -> str:
    """A row for each backend and precision."""
    steps = list(next(iter(part.values())))
    rows = [[name, *(f"{row[step]:.1e}" for step in steps)] for name, row in part.items()]
    return _table(["", *(f"after {step} steps" for step in steps)], rows)


def cost(part: Part) -> str:
    """A row for each thing that was done with the batch."""
    names = {"none": "scoring", "lozo": "LOZO", "adamw": "AdamW"}
    rows = [
        [
            setting,
            names[name],
            f"{row['peak_gb']:.2f} GB",
            f"{row['memory_ratio']:.2f}",
            f"{row['arrays_gb']:.2f} GB" if "arrays_gb" in row else "–",
            f"{row['seconds']:.1f} s",
            f"{row['time_ratio']['median']:.2f}",
        ]
        for setting, measured in part.items()
        for name, row in measured["rows"].items()
    ]
    return _table(
        ["", "", "peak memory", "of scoring's", "live tensors", "CPU time", "of scoring's"], rows
    )


def world(part: Part) -> str:
    """Held-out accuracy at tenths of each run."""
    rows = []
    for name, run in part.items():
        for point in run["points"]:
            cells = (f"{point['step']}", f"{point['cpu_seconds']:.1f}", f"{point['loss']:.3f}")
            rows.append([name, *cells, f"{point['accuracy']:.3f}", f"{run['peak_gb']:.2f} GB"])
    head = ["", "steps", "CPU seconds", "held-out loss", "raw accuracy", "process memory"]
    return _table(head, rows)


def smollm2(part: Part) -> str:
    """Held-out loss at the start and the end of each seed."""
    rows = []
    for name, run in part.items():
        first, last = run["points"][0], run["points"][-1]
        losses = [f"{point['loss']:.4f}" for point in (first, last)]
        rate = f"{run['settings']['learning_rate']:g}"
        rows.append([name, rate, *losses, str(last["step"]), f"{last['cpu_seconds']:.0f}"])
    return _table(["", "rate", "loss before", "after", "steps", "CPU seconds"], rows)


TABLES: dict[str, Callable[[Part], str]] = {
    "drift": drift,
    "cost": cost,
    "world": world,
    "smollm2": smollm2,
}


def filled(text: str, results: Part) -> str:
    """The page's text with the tables of the results between their marks."""
    for name, make in TABLES.items():
        body = make(results[name]) if name in results else "Not measured yet."
        text = pages.filled(text, f"<!-- {name} -->", f"<!-- end of {name} -->", body)
    return text


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(filled(page, read_result("zeroth_order")), encoding="utf-8")
