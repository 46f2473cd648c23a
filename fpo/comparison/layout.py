"""What a comparison leaves in its folder, and what its runs cost by their logs."""

from pathlib import Path
from typing import Any

from fpo.comparison.plan import Planned
from fpo.curves import read_log

RESULT_FILE, START_FILE, TABLE_FILE = "result.json", "start.json", "compare.json"
JUDGED = ("judge_score", "win_rate", "win_rate_controlled")
"""Metrics by the judge of a comparison's settings, which `TABLE_FILE` alone holds."""


def run_folder(folder: Path, planned: Planned) -> Path:
    """The folder of a run in that of its comparison."""
    return folder / "runs" / planned.name


def costs(log: Path) -> dict[str, float]:
    """Seconds of all steps, their mean, and the largest memory, from a run's log."""
    reports = [e for e in read_log(log) if e["kind"] == "train" and "seconds_per_step" in e]
    steps = [
        after["step"] - before for after, before in zip(reports, _before(reports), strict=True)
    ]
    total = sum(e["seconds_per_step"] * count for e, count in zip(reports, steps, strict=True))
    return {
        "step_seconds": total,
        "seconds_per_step": total / max(sum(steps), 1),
        "peak_memory": max((e["peak_memory"] for e in reports), default=0),
    }


def _before(reports: list[dict[str, Any]]) -> list[int]:
    return [0, *(event["step"] for event in reports)][: len(reports)]
