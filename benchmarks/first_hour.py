"""Runs of SmolLM2 without a preset, some planted to break it: verdicts, shares of time, estimate.

Run: python -m benchmarks.first_hour [--runs default lr-x10 …] [--cache FOLDER]

Model and autoencoder are those of examples/smollm2, the pairs are `own_pairs`, a quarter of them
held out, or those of moods. Every setting is that of `fpo train --preset none`, but that two epochs
make more than a few steps. Seconds are the process's CPU time, by the event that ends each piece of
work, so that neighbours on the machine count for nothing. The runs named replace their figures in
the results; others stay.
"""

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.record import ROOT, hardware, read_result, write_result

time.perf_counter = time.process_time  # before the preflight reads it

import fpo  # noqa: E402
from benchmarks.own_pairs import write_own_pairs  # noqa: E402
from fpo_core.config import OptimiserConfig  # noqa: E402
from fpo_core.events import Event  # noqa: E402
from fpo_core.reference.reader import ReferenceStore  # noqa: E402
from fpo_core.train.preflight import preflight  # noqa: E402

NAME = "first_hour"
RATE = OptimiserConfig().peak_learning_rate("lora")
RUNS: dict[str, dict[str, Any]] = {
    "default": {},
    "lr-x10": {"learning_rate": 10 * RATE},
    "lr-x100": {"learning_rate": 100 * RATE, "preflight": False, "val_pairs": 4},
    "moods": {"preflight": False},
    "moods-lr-x10": {"learning_rate": 10 * RATE, "preflight": False},
}
_LABELS = {
    "training": "training",
    "held-out pairs: batch": "pairs",
    "greedy answers: token": "answers",
}
_KINDS = {"step0": "validation", "eval": "validation", "checkpoint": "saving", "train": "training"}


class Spans:
    """A sink that adds the CPU time up to each event to what the event ends."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.notes: list[str] = []
        self._last, self._within = time.process_time(), False

    def __call__(self, event: Event) -> None:
        """Take note of one event."""
        now = time.process_time()
        self.seconds[self._phase(event)] += now - self._last
        self._last = now
        if event.kind in ("begin", "end"):
            self._within = event.kind == "begin"
        if event.kind == "note":
            self.notes.append(event.values["message"])

    def _phase(self, event: Event) -> str:
        if event.kind == "progress":
            phase = _LABELS.get(event.values["label"], "preflight")
            # Pairs are scored in validations within the loop, to be measured before and after it.
            return ("validation" if self._within else "measuring") if phase == "pairs" else phase
        if event.kind == "reference":
            return "reference"
        return _KINDS.get(event.kind, "other")


def measured(name: str, inputs: dict[str, Any], output: Path) -> dict[str, Any]:
    settings = inputs | RUNS[name]
    moods = settings.pop("moods")
    if name.startswith("moods"):
        settings |= {"data": moods, "reference": f"{settings['reference']}-moods"}
        del settings["valid_fraction"]
    spans, estimates = Spans(), {}

    def sink(event: Event) -> None:
        spans(event)
        print(event.kind, event.step, event.values.get("message", ""), file=sys.stderr, flush=True)

    def noting(*args: Any, **options: Any) -> Any:
        estimate = preflight(*args, **options)
        estimates.update(estimate.to_mapping())
        return estimate

    start = time.process_time()
    with patch("fpo.preflight_report.preflight", noting):
        run = fpo.train(**settings, output=output, sink=sink)
    total = time.process_time() - start
    seconds = {phase: round(value, 3) for phase, value in spans.seconds.items()}
    names = {
        "training": "train_seconds",
        "validation": "validation_seconds",
        "measuring": "measuring_seconds",
    }
    return {
        "settings": RUNS[name],
        "dtype": ReferenceStore.made_with(Path(settings["reference"]))["dtype"],
        "hardware": hardware(),
        "cpu_seconds": {"total": round(total, 3), **seconds},
        "validation_share": spans.seconds["validation"] / total,
        "estimate": {phase: estimates.get(key) for phase, key in names.items()},
        "estimate_off": {
            phase: estimates[key] / spans.seconds[phase] - 1
            for phase, key in names.items()
            if key in estimates
        },
        "verdict": run.verdict,
        "before": run.before and run.before.to_mapping(),
        "after": run.metrics,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--cache", help="where examples/smollm2 finds its model")
    parser.add_argument("--reference", help="store that the runs share, for one that goes on")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT / "examples" / "smollm2"))
    example = importlib.import_module("example").smollm2_example(args.cache)
    runs = read_result(NAME).get("runs", {})
    with tempfile.TemporaryDirectory() as folder:
        example.convert(Path(folder))
        write_own_pairs(Path(folder) / "pairs.jsonl")
        inputs = {
            "preset": "none",
            "model": example.model,
            "data": Path(folder) / "pairs.jsonl",
            "moods": example.pairs,
            "valid_fraction": 0.25,
            "epochs": 2,
            "sae": Path(folder) / "sae.safetensors",
            "reference": args.reference or Path(folder) / "reference",
        }
        for name in args.runs:
            runs[name] = measured(name, inputs, Path(folder) / name)
            write_result(NAME, {"runs": {name: runs[name] for name in RUNS if name in runs}})
            print(json.dumps(runs[name], indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
