"""What training tells of a run in its record: settings, data, measurements, samples."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from fpo.measurements import table_of
from fpo.provenance import LEFT_OUT, setting_text
from fpo.reporting.record import Record
from fpo_core.config import TrainConfig
from fpo_core.evaluation.model_card import shown

SAMPLES = 24
"""Samples that are shown, before and after."""


def about_run(config: TrainConfig, backend: str, steps: int | None) -> list[str]:
    """A run in a few words: model, objective, what is trained, steps, backend."""
    length = () if steps is None else (f"{steps} steps",)
    return [shown(config.model), config.objective, config.fine_tune_type, *length, backend]


def settings_rows(config: TrainConfig) -> Record:
    """Settings as rows of text, `settings` those that are not at their defaults.

    Of a path its last part alone.
    """
    set_rows, all_rows = [], []
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in LEFT_OUT or value is None:
            continue
        row = [field.name, setting_text(field.name, value)]
        all_rows.append(row)
        if value != field.default:
            set_rows.append(row)
    in_force = {n: config.coefficient(n) for n in config.objective_entry.coefficients}
    in_force["learning_rate"] = config.peak_learning_rate(config.fine_tune_type)
    listed = {name for name, _ in set_rows}
    set_rows += [[n, f"{value:g}"] for n, value in in_force.items() if n not in listed]
    return {"settings": set_rows, "all_settings": all_rows}


def measured(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Record:
    """Measurements before and after as a table."""
    table = table_of(before, after)
    return {
        "head": list(table.head),
        "rows": [list(r) for r in table.rows],
        "below": list(table.below),
    }


def samples_of(
    prompts: Sequence[str], before: Mapping[str, Any] | None, after: Mapping[str, Any]
) -> list[Record]:
    """Completions of the same prompts side by side, with the judge's scores where there are any."""
    sides = [("before", before or {}), ("after", after)]
    samples = []
    for i, prompt in enumerate(prompts[:SAMPLES]):
        shown_sides = [
            {"name": name, "text": values["completions"][i], "score": _score(values, i)}
            for name, values in sides
            if i < len(values.get("completions", ()))
        ]
        if shown_sides:
            samples.append({"prompt": prompt, "sides": shown_sides})
    return samples


def _score(values: Mapping[str, Any], i: int) -> str | None:
    scores = values.get("sample_scores") or ()
    return f"judge {scores[i]:.2f}" if i < len(scores) else None


def answers_of(samples: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Greedy answers side by side, of the shape of `greedy_answers.compared`; which are right."""
    return [
        {
            "prompt": sample["prompt"],
            "sides": [
                {"name": f"{side}, greedy", "text": sample[side], "score": _right(sample, side)}
                for side in ("before", "after")
                if side in sample
            ],
        }
        for sample in samples
    ]


def _right(sample: Mapping[str, Any], side: str) -> str | None:
    right = sample.get(f"right_{side}")
    return None if right is None else "right" if right else "wrong"
