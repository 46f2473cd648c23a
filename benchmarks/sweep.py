"""What each setting does, one at a time: the tables of docs/choosing.md.

Run: python -m benchmarks.sweep [--on world | smollm2] [--output FOLDER] [--seeds 0] [--report]

On the quickstart's world, or on the model of examples/smollm2. Adapters and full training are swept
separately, each around its own base. Finished runs are not repeated. The tables replace those
between two marks in the document.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.pages import fill
from benchmarks.record import ROOT, read_result, write_result
from fpo.comparison.plan import Planned, plan
from fpo.comparison.runs import Comparison
from fpo.comparison.tables import RunResult, rows
from fpo.example_inputs import Example, quickstart_world
from fpo.sinks import print_progress
from fpo_core.config import CompareConfig

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


@dataclass(frozen=True)
class Ground:
    """A model with data to sweep on, and what to measure."""

    name: str
    example: Callable[[], Example]
    shared: dict[str, Any]
    """Settings of all runs, which override the example's."""
    sweeps: tuple[Sweep, ...]
    columns: dict[str, tuple[str, str]]
    """Columns of `fpo compare`: head and format of each."""
    samples: int
    pairs: int

    def measured(self, sweep: Sweep, output: Path, seeds: Sequence[str]) -> dict[str, Any]:
        """Run what is unfinished of a sweep; its rows."""
        example = self.example()
        example.convert(output)
        config = CompareConfig(
            output=str(output),
            seeds=tuple(seeds),
            objectives=("fpo",),
            samples=self.samples,
            eval_pairs=self.pairs,
        )
        settings = example.training(output) | self.shared | sweep.base
        runs = [
            replace(run, varied=change)
            for change in sweep.changes()
            for run in plan(config, settings | change, self.name)
        ]
        start, results = Comparison(config, runs, example.judge, print_progress).results()
        return {
            "title": sweep.title,
            "seeds": list(seeds),
            "base": _base(runs[0]),
            "start": {name: start["metrics"].get(name) for name in ("oracle", "perplexity")},
            "rows": [self._row(row, results) for row in rows(results)],
        }

    def _row(self, row: dict[str, Any], results: Sequence[RunResult]) -> dict[str, Any]:
        of_row = [result for result in results if result["variant"] == row["variant"]]
        ratio = sum(result["constraint_ratio"] for result in of_row) / len(of_row)
        shown = {name: row[name] for name in self.columns}
        return {"changed": of_row[0]["varied"], "constraint_ratio": ratio} | shown


_COLUMNS = {
    "raw_accuracy": ("raw accuracy", ".3f"),
    "kl_rejected": ("KL rejected", ".3g"),
    "d_rejected": ("D rejected", ".2g"),
    "perplexity": ("perplexity", ".4g"),
}
_ON_WORLD: Values = {
    "alpha": (0.5, 50.0),
    "beta": (10.0, 300.0),
    "k": (10, 200),
    "batch_size": (4, 32),
}
WORLD = Ground(
    "world",
    quickstart_world,
    {"val_pairs": 50, "steps_per_eval": 65, "save_every": 130},
    (
        Sweep("Adapters", {}, {"learning_rate": (3e-4, 1e-3, 1e-2), **_ON_WORLD, "rank": (4, 64)}),
        Sweep(
            "Full training",
            {"fine_tune_type": "full", "learning_rate": 3e-4},
            {"learning_rate": (3e-5, 1e-4, 1e-3), **_ON_WORLD},
        ),
    ),
    {"raw_accuracy": _COLUMNS["raw_accuracy"], "oracle": ("oracle", ".3f"), **_COLUMNS},
    samples=192,
    pairs=100,
)
SMOLLM2 = Ground(
    "smollm2",
    lambda: importlib.import_module("example").smollm2_example(None),
    {"iters": 40, "steps_per_eval": 40, "save_every": 40, "val_pairs": 24}
    | {"alpha": 5.0, "beta": 2.0},
    (
        Sweep(
            "Adapters",
            {"learning_rate": 1e-4},
            {
                "learning_rate": (3e-5, 3e-4, 1e-3),
                "alpha": (0.5, 50.0),
                "beta": (0.1, 10.0),
                "batch_size": (8,),
                "rank": (32,),
            },
        ),
        Sweep(
            "Full training",
            {"fine_tune_type": "full", "learning_rate": 1e-5},
            {"learning_rate": (1e-6, 3e-6, 3e-5), "alpha": (50.0,), "batch_size": (8,)},
        ),
    ),
    _COLUMNS,
    samples=0,
    pairs=52,
)
GROUNDS = {ground.name: ground for ground in (WORLD, SMOLLM2)}


def _base(run: Planned) -> dict[str, Any]:
    names = ("learning_rate", "alpha", "beta", "k", "batch_size", "rank", "iters")
    if run.config.fine_tune_type == "full":
        names = tuple(name for name in names if name != "rank")
    return {name: getattr(run.config, name) for name in names}


def table(sweep: dict[str, Any], columns: dict[str, tuple[str, str]]) -> str:
    """A sweep as Markdown."""
    base = ", ".join(f"{name} {value:g}" for name, value in sweep["base"].items())
    names = sweep["seeds"]
    seeds = f"seed {names[0]}" if len(names) == 1 else f"{len(names)} seeds"
    start = ", ".join(f"{k} {v:.4g}" for k, v in sweep["start"].items() if v is not None)
    heads = ["changed", *(head for head, _ in columns.values()), "α·D / margin"]
    lines = [
        f"**{sweep['title']}**, around {base} ({seeds}; before: {start}):",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    for row in sweep["rows"]:
        name = ", ".join(f"{k} {v:g}" for k, v in row["changed"].items()) or "nothing"
        cells = [format(row[key], form) for key, (_, form) in columns.items()]
        lines.append(f"| {name} | {' | '.join([*cells, format(row['constraint_ratio'], '.2g')])} |")
    return "\n".join(lines)


def write_tables(document: Path, ground: Ground, sweeps: Sequence[dict[str, Any]]) -> None:
    """Put the tables between the document's marks."""
    begin = f"<!-- sweep on {ground.name}: made by python -m benchmarks.sweep -->"
    end = "<!-- end of sweep -->"
    tables = "\n\n".join(table(sweep, ground.columns) for sweep in sweeps)
    fill(document, begin, end, tables)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("--on", choices=list(GROUNDS), default="world")
    parser.add_argument("--output", type=Path, default=Path("fpo-sweep"))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--report", action="store_true", help="only write the tables again")
    args = parser.parse_args()
    ground = GROUNDS[args.on]
    if ground is WORLD:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in the quickstart
    else:
        sys.path.insert(0, str(ROOT / "examples" / "smollm2"))
    if args.report:
        sweeps = read_result(f"sweep-{ground.name}")["sweeps"]
    else:
        places = (args.output / sweep.title.split()[0].lower() for sweep in ground.sweeps)
        sweeps = [
            ground.measured(sweep, place, args.seeds.split(","))
            for sweep, place in zip(ground.sweeps, places, strict=True)
        ]
        write_result(f"sweep-{ground.name}", {"sweeps": sweeps})
    write_tables(DOCUMENT, ground, sweeps)


if __name__ == "__main__":
    main()
