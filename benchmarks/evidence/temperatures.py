"""Table F: tested adapters sampled at several temperatures."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import fpo
from benchmarks.evidence.ground import Sampled
from benchmarks.evidence.rows import Row, of_arm, scores
from benchmarks.evidence.runs import Part
from benchmarks.evidence.statistics import Estimate, estimate
from fpo_core.io.atomic import write_json

TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0)


def sampled(part: Part, test: Sequence[Row], names: Sequence[str], seeds: Sequence[int]) -> None:
    """Leave a row of samples beside every adapter and temperature, where there is none."""
    asked = part.folder / "prompts.jsonl"
    asked.write_text("".join(f"{json.dumps(p)}\n" for p in part.prompts), encoding="utf-8")
    for row in (row for name in names for row in of_arm(test, name) if row["seed"] in seeds):
        folder = part.adapter(row["arm"], row["change"], row["seed"])
        for temperature in TEMPERATURES:
            path = folder / f"temperature-{temperature}.json"
            if path.exists():
                continue
            answers = folder / f"answers-{temperature}.jsonl"
            fpo.answer_prompts(
                model=str(part.base["model"]),
                adapter=folder,
                prompts=asked,
                out=answers,
                temperature=temperature,
                max_tokens=part.ground.sampling["max_tokens"],
                seed=row["seed"],
                batch_size=len(part.prompts),
                backend="torch",
                device="cpu",
            )
            lines = map(json.loads, answers.read_text(encoding="utf-8").splitlines())
            texts = [
                Sampled(p, line["completion"], cut=not line["ended"])
                for p, line in zip(part.prompts, lines, strict=True)
            ]
            judged = part.judging.judged(texts)
            of = {name: row[name] for name in ("arm", "seed")} | {"temperature": temperature}
            write_json(path, of | {"samples": judged})
            print(of, flush=True)


def collected(folder: Path) -> list[Row]:
    """All such rows below a folder."""
    paths = folder.rglob("temperature-*.json")
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return sorted(rows, key=lambda row: (row["arm"], row["temperature"], row["seed"]))


def at(rows: Sequence[Row], name: str, temperature: float) -> list[Row]:
    """An arm's rows at a temperature, by seed."""
    return [row for row in of_arm(rows, name) if row["temperature"] == temperature]


def win_rate(ours: Sequence[Row], theirs: Sequence[Row]) -> Estimate:
    """How often a sample scores more than the other arm's of its prompt and seed; ties half."""
    gaps = np.array([scores(a) - scores(b) for a, b in zip(ours, theirs, strict=True)])
    return estimate((np.sign(gaps) + 1) / 2)
