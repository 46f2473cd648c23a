"""The tables of docs/online.md and docs/values.md, from results/online_world.json.

Run: python -m benchmarks.online_tables, which writes them between their marks.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.record import ROOT, read_result
from benchmarks.related.runs import interval

PAGES = tuple(ROOT / "docs" / name for name in ("online.md", "values.md"))
Row = Mapping[str, Any]
Seeds = Mapping[str, Mapping[str, Mapping[str, Row]]]
"""By seed, part and name."""


def _table(seeds: Seeds, part: str, columns: Mapping[str, str], rows: Mapping[str, Any]) -> str:
    """A row for each name: means over the seeds that have it, with 95% intervals."""
    lines = [f"| | seeds | {' | '.join(columns.values())} |", "|---" * (len(columns) + 2) + "|"]
    for name, of in rows.items():
        measured = [of(seed[part]) for seed in seeds.values() if of(seed.get(part, {}))]
        if measured:
            cells = [_cell([row[column] for row in measured]) for column in columns]
            lines.append(f"| {name} | {len(measured)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3g}"
    spread = interval(values)
    return f"{spread['mean']:.3g} [{spread['low']:.3g}, {spread['high']:.3g}]"


def _named(name: str) -> Callable[[Mapping[str, Row]], Row | None]:
    return lambda part: part.get(name)


def training(seeds: Seeds) -> str:
    """Ways of training."""
    columns = {
        "preferred": "oracle",
        "kl": "KL",
        "d_chosen": "D chosen",
        "d_rejected": "D rejected",
    }
    columns |= {"iters": "steps", "cpu_seconds": "CPU seconds"}
    names = ("fpo", "online", "online, equal seconds", "dpr", "dpr, equal seconds")
    return _table(seeds, "training", columns, {name: _named(name) for name in names})


def decoding(seeds: Seeds) -> str:
    """β beside best of n."""
    columns = {"preferred": "oracle", "kl": "KL", "cpu_seconds_each": "CPU seconds a sample"}
    best = ("beta 0", "best of 4", "best of 16")
    rows: dict[str, Any] = {name: _in_best(name) for name in best}
    rows |= {name: _named(name) for name in ("beta 1", "beta 3", "beta 10")}
    return _table(seeds, "decoding", columns, rows)


def _in_best(name: str) -> Callable[[Mapping[str, Row]], Row | None]:
    return lambda part: part.get("best", {}).get(name)


def explained(seeds: Seeds) -> str:
    """R² of values on held-out prompts."""
    places = {"prompt": "prompt", "quarter": "¼", "half": "½", "three_quarters": "¾", "end": "end"}
    rows = []
    for name, part in (("politeness", "decoding"), ("french", "composed")):

        def of(rows: Mapping[str, Row], key: str = f"value of {name}") -> Row | None:
            return rows.get(key, {}).get("explained")

        rows.append(_table(seeds, part, places, {name: of}))
    return rows[0] + "\n" + "\n".join(rows[1].splitlines()[2:])


def composed(seeds: Seeds) -> str:
    """Two values together."""
    columns = {
        "preferred": "polite",
        "language": "French",
        "well_formed": "well formed",
        "kl": "KL",
    }
    names = dict.fromkeys(name for seed in seeds.values() for name in seed.get("composed", {}))
    rows: dict[str, Any] = {name[8:]: _named(name) for name in names if name.startswith("both at")}
    return _table(seeds, "composed", columns, rows)


TABLES = {
    "training": training,
    "decoding": decoding,
    "explained": explained,
    "composed": composed,
}


def filled(text: str, results: Mapping[str, Any]) -> str:
    """A page's text with the tables between their marks."""
    for name, make in TABLES.items():
        pattern = re.compile(f"<!-- {name} -->.*?<!-- end of {name} -->", re.S)
        made = f"<!-- {name} -->\n\n{make(results['seeds'])}\n\n<!-- end of {name} -->"
        text = pattern.sub(lambda _, made=made: made, text)
    return text


if __name__ == "__main__":
    for page in PAGES:
        made = filled(page.read_text(encoding="utf-8"), read_result("online_world"))
        page.write_text(made, encoding="utf-8")
