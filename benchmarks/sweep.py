"""What each setting does on the quickstart's world, one at a time: the tables of docs/choosing.md.

Run: python -m benchmarks.sweep [--output FOLDER] [--seeds 0] [--report]

Adapters and full training are swept apart, each around a base of its own. Finished runs are read
again. The tables stand between two marks in the document; the rest of it is left as it is.
"""

import argparse
import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in the quickstart

from fpo_cli.commands.quickstart import SETTINGS, TOKENS
from fpo_cli.compare.plan import Planned, plan
from fpo_cli.compare.runs import Comparison, Result
from fpo_cli.compare.table import rows
from fpo_cli.example import quickstart_world
from fpo_cli.ui import Ui
from fpo_core.config import CompareConfig

ROOT = Path(__file__).parents[1]
DOCUMENT, RESULTS = ROOT / "docs" / "choosing.md", ROOT / "benchmarks" / "results" / "sweep.json"
BEGIN, END = "<!-- sweep: made by python -m benchmarks.sweep -->", "<!-- end of sweep -->"
SHARED = {"val_pairs": 50, "steps_per_eval": 65, "save_every": 130}
SAMPLES = 192

Values = dict[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Sweep:
    """A base and the other values of each of its settings."""

    title: str
    base: dict[str, Any]
    others: Values

    def changes(self) -> Iterator[dict[str, Any]]:
        """The base itself, then every single departure from it."""
        yield {}
        for name, values in self.others.items():
            yield from ({name: value} for value in values)


_COMMON: Values = {
    "alpha": (0.5, 50.0),
    "beta": (10.0, 300.0),
    "k": (10, 200),
    "batch_size": (4, 32),
}
SWEEPS = (
    Sweep("Adapters", {}, {"learning_rate": (3e-4, 1e-3, 1e-2), **_COMMON, "rank": (4, 64)}),
    Sweep(
        "Full training",
        {"fine_tune_type": "full", "learning_rate": 3e-4},
        {"learning_rate": (3e-5, 1e-4, 1e-3), **_COMMON},
    ),
)
COLUMNS = {
    "raw_accuracy": ("raw accuracy", ".3f"),
    "oracle": ("oracle", ".3f"),
    "kl_rejected": ("KL rejected", ".3g"),
    "d_rejected": ("D rejected", ".2g"),
    "perplexity": ("perplexity", ".3f"),
}


def planned(sweep: Sweep, output: Path, seeds: Sequence[str]) -> list[Planned]:
    """The runs of a sweep, in the order of its table."""
    example = quickstart_world(SETTINGS, TOKENS)
    settings = example.training(output) | SHARED | sweep.base
    config = CompareConfig(
        output=str(output), seeds=tuple(seeds), objectives=("fpo",), samples=SAMPLES
    )
    return [
        replace(run, varied=change)
        for change in sweep.changes()
        for run in plan(config, settings | change, str(SETTINGS))
    ]


def measured(sweep: Sweep, output: Path, seeds: Sequence[str], ui: Ui) -> dict[str, Any]:
    """Run what is left of a sweep; its rows."""
    example = quickstart_world(SETTINGS, TOKENS)
    example.convert(output)
    runs = planned(sweep, output, seeds)
    config = CompareConfig(output=str(output), seeds=tuple(seeds), samples=SAMPLES)
    start, results = Comparison(config, runs, example.judge, ui).results()
    return {
        "title": sweep.title,
        "seeds": list(seeds),
        "base": _base(runs[0]),
        "start": start["metrics"]["oracle"],
        "rows": [_row(sweep, row, results) for row in rows(results)],
    }


def _base(run: Planned) -> dict[str, Any]:
    names = ("learning_rate", "alpha", "beta", "k", "batch_size", "rank", "iters")
    found = {name: getattr(run.config, name) for name in names}
    if run.config.fine_tune_type == "full":
        del found["rank"]
    return found


def _row(sweep: Sweep, row: dict[str, Any], results: Sequence[Result]) -> dict[str, Any]:
    mine = next(result for result in results if result["variant"] == row["variant"])
    ratios = [r["constraint_ratio"] for r in results if r["variant"] == row["variant"]]
    return {"changed": mine["varied"], "constraint_ratio": sum(ratios) / len(ratios)} | {
        name: row[name] for name in COLUMNS
    }


def table(found: dict[str, Any]) -> str:
    """A sweep as Markdown."""
    base = ", ".join(f"{name} {value:g}" for name, value in found["base"].items())
    seeds = (
        f"seed {found['seeds'][0]}" if len(found["seeds"]) == 1 else f"{len(found['seeds'])} seeds"
    )
    heads = ["changed", *(head for head, _ in COLUMNS.values()), "α·D / margin"]
    lines = [
        f"**{found['title']}**, around {base} ({seeds}; oracle {found['start']:.3f} before):",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    for row in found["rows"]:
        name = ", ".join(f"{k} {v:g}" for k, v in row["changed"].items()) or "nothing"
        cells = [format(row[key], form) for key, (_, form) in COLUMNS.items()]
        ratio = row["constraint_ratio"]
        cells.append("–" if ratio is None else f"{ratio:.2g}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_tables(document: Path, sweeps: Sequence[dict[str, Any]]) -> None:
    """Put the tables between the document's marks."""
    before, _, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{document} lacks {BEGIN!r} and {END!r}: put both where the tables go")
    tables = "\n\n".join(table(sweep) for sweep in sweeps)
    document.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("fpo-sweep"))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--report", action="store_true", help="only write the tables again")
    args = parser.parse_args()
    if args.report:
        found = json.loads(RESULTS.read_text(encoding="utf-8"))["sweeps"]
    else:
        places = (args.output / sweep.title.split()[0].lower() for sweep in SWEEPS)
        found = [
            measured(sweep, place, args.seeds.split(","), Ui())
            for sweep, place in zip(SWEEPS, places, strict=True)
        ]
        result = {
            "command": f"python -m benchmarks.sweep --seeds {args.seeds}",
            "machine": f"{platform.platform()}, {os.cpu_count()} CPUs",
            "versions": {name: version(name) for name in ("torch", "transformers", "numpy")},
            "sweeps": found,
        }
        RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    write_tables(DOCUMENT, found)


if __name__ == "__main__":
    main()
