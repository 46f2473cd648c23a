"""What each setting does, one at a time: the tables of docs/choosing.md.

Run: python -m benchmarks.sweep [--output FOLDER] [--seeds 0] [--report]

On the quickstart's world. Adapters and full training are swept separately, each around its own
base. Finished runs are not repeated. The tables replace those between two marks in the document.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.pages import fill
from benchmarks.record import ROOT, read_result, write_result
from fpo.comparison.plan import Planned, plan
from fpo.comparison.runs import Comparison
from fpo.comparison.tables import RunResult, rows
from fpo.example_inputs import quickstart_world
from fpo.sinks import print_progress
from fpo_core.config import CompareConfig

NAME = "sweep-world"
DOCUMENT = ROOT / "docs" / "choosing.md"

Values = dict[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Sweep:
    """A base, and values to try of each setting."""

    title: str
    base: dict[str, Any]
    others: Values

    def changes(self) -> Iterator[dict[str, Any]]:
        """The base, then every change of one setting."""
        yield {}
        for name, values in self.others.items():
            yield from ({name: value} for value in values)


COLUMNS = {
    "raw_accuracy": ("raw accuracy", ".3f"),
    "oracle": ("oracle", ".3f"),
    "kl_rejected": ("KL rejected", ".3g"),
    "d_rejected": ("D rejected", ".2g"),
    "perplexity": ("perplexity", ".4g"),
}
"""Columns of `fpo compare`: head and format of each."""
SHARED = {"val_pairs": 50, "steps_per_eval": 65, "save_every": 130}
"""Settings of all runs, which override the quickstart's."""
_OTHERS: Values = {
    "alpha": (0.5, 50.0),
    "beta": (10.0, 300.0),
    "k": (10, 200),
    "batch_size": (4, 32),
}
SWEEPS = (
    Sweep("Adapters", {}, {"learning_rate": (3e-4, 1e-3, 1e-2), **_OTHERS, "rank": (4, 64)}),
    Sweep(
        "Full training",
        {"fine_tune_type": "full", "learning_rate": 3e-4},
        {"learning_rate": (3e-5, 1e-4, 1e-3), **_OTHERS},
    ),
)


def measured(sweep: Sweep, output: Path, seeds: Sequence[str]) -> dict[str, Any]:
    """Run what is unfinished of a sweep; its rows."""
    example = quickstart_world()
    example.convert(output)
    config = CompareConfig(
        output=str(output), seeds=tuple(seeds), objectives=("fpo",), samples=192, eval_pairs=100
    )
    settings = example.training(output) | SHARED | sweep.base
    runs = [
        replace(run, varied=change)
        for change in sweep.changes()
        for run in plan(config, settings | change, NAME)
    ]
    start, results = Comparison(config, runs, example.judge, print_progress).results()
    return {
        "title": sweep.title,
        "seeds": list(seeds),
        "base": _base(runs[0]),
        "start": {name: start["metrics"].get(name) for name in ("oracle", "perplexity")},
        "rows": [_row(row, results) for row in rows(results)],
    }


def _row(row: dict[str, Any], results: Sequence[RunResult]) -> dict[str, Any]:
    of_row = [result for result in results if result["variant"] == row["variant"]]
    share = sum(result["constraint_share"] for result in of_row) / len(of_row)
    shown = {name: row[name] for name in COLUMNS}
    return {"changed": of_row[0]["varied"], "constraint_share": share} | shown


def _base(run: Planned) -> dict[str, Any]:
    names = ("learning_rate", "alpha", "beta", "k", "batch_size", "rank", "iters")
    if run.config.fine_tune_type == "full":
        names = tuple(name for name in names if name != "rank")
    return {name: getattr(run.config, name) for name in names}


def table(sweep: dict[str, Any]) -> str:
    """A sweep as Markdown."""
    base = ", ".join(f"{name} {value:g}" for name, value in sweep["base"].items())
    names = sweep["seeds"]
    seeds = f"seed {names[0]}" if len(names) == 1 else f"{len(names)} seeds"
    start = ", ".join(f"{k} {v:.4g}" for k, v in sweep["start"].items() if v is not None)
    heads = ["changed", *(head for head, _ in COLUMNS.values()), "constraint's share"]
    lines = [
        f"**{sweep['title']}**, around {base} ({seeds}; before: {start}):",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    for row in sweep["rows"]:
        name = ", ".join(f"{k} {v:g}" for k, v in row["changed"].items()) or "nothing"
        cells = [format(row[key], form) for key, (_, form) in COLUMNS.items()]
        lines.append(f"| {name} | {' | '.join([*cells, format(row['constraint_share'], '.2g')])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("fpo-sweep"))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--report", action="store_true", help="only write the tables again")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in the quickstart
    if args.report:
        sweeps = read_result(NAME)["sweeps"]
    else:
        places = (args.output / sweep.title.split()[0].lower() for sweep in SWEEPS)
        sweeps = [
            measured(sweep, place, args.seeds.split(","))
            for sweep, place in zip(SWEEPS, places, strict=True)
        ]
        write_result(NAME, {"sweeps": sweeps})
    begin = "<!-- sweep on world: made by python -m benchmarks.sweep -->"
    fill(DOCUMENT, begin, "<!-- end of sweep -->", "\n\n".join(map(table, sweeps)))


if __name__ == "__main__":
    main()
