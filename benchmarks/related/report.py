"""The measurements as tables of docs/choosing.md, between its marks."""

from collections.abc import Mapping
from typing import Any

from benchmarks.pages import fill
from benchmarks.record import ROOT, read_result

DOCUMENT = ROOT / "docs" / "choosing.md"
BEGIN = "<!-- related: made by python -m benchmarks.related -->"
END = "<!-- end of related -->"
TABLES = {
    "links": (
        "Each loss, from the same start",
        {
            "oracle": "oracle",
            "raw_accuracy": "raw accuracy",
            "entropy": "entropy",
            "chosen": "log π chosen",
            "chosen_lowest": "its lowest",
            "rejected": "log π rejected",
        },
    ),
    "strength": (
        "Adaptive scaling on pairs of known strength, with and without wrong labels",
        {
            "spearman_of_tau": "Spearman of τ* and gap",
            "accuracy": "accuracy",
            "accuracy_unclear": "of unclear pairs",
            "margin_clear": "u of clear pairs",
            "margin_unclear": "u of unclear pairs",
        },
    ),
    "goals": (
        "Reward-augmented data: the oracle's score at a goal",
        {
            "oracle_at_1": "at 1",
            "oracle_at_4": "at 4",
            "oracle_at_7": "at 7",
            "oracle_at_10": "at 10",
            "slope": "slope",
            "good_rejected_logp": "log π of good rejected",
        },
    ),
    "degrees": (
        "SPO's degrees, by what is removed and the weight γ",
        {
            "oracle": "oracle",
            "raw_accuracy": "raw accuracy",
            "entropy": "entropy",
            "degree_hit": "degrees told right",
        },
    ),
}
"""By part: the title of its table, and its columns."""


def tables(results: Mapping[str, Any]) -> str:
    """All that was measured, as Markdown."""
    parts = results["parts"]
    return "\n\n".join(_table(name, parts[name]) for name in TABLES if name in parts)


def _table(name: str, part: Mapping[str, Any]) -> str:
    title, columns = TABLES[name]
    lines = [
        f"**{title}** (mean over seeds, 95% interval):",
        "",
        f"| | {' | '.join(columns.values())} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for case, row in part.items():
        # Beside the cases stand counts, and the start, of which there is one.
        if isinstance(row, Mapping) and any(isinstance(v, Mapping) for v in row.values()):
            lines.append(f"| {case} | {' | '.join(_cell(row.get(key)) for key in columns)} |")
    return "\n".join(lines)


def _cell(value: Mapping[str, float] | None) -> str:
    if value is None:
        return "–"
    return f"{value['mean']:.3g} [{value['low']:.3g}, {value['high']:.3g}]"


def write() -> None:
    """Put the tables between the document's marks."""
    fill(DOCUMENT, BEGIN, END, tables(read_result("related")))
