"""Answers and verdicts in the files that other harnesses read."""

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fpo_core.io.atomic import write_atomically, write_json
from fpo_core.judges.answer_files import AnsweredTwice, as_lines


def export(folder: Path, name: str, pairs: AnsweredTwice, preferences: Sequence[float]) -> None:
    """Write one of `fpo_core.config.judging.EXPORTS` into a folder of its name.

    `preferences` say how far the first answers were preferred, NaN for no verdict.
    """
    _WRITERS[name](folder / name, pairs, preferences)


def _alpaca_eval(folder: Path, pairs: AnsweredTwice, preferences: Sequence[float]) -> None:
    """model_outputs.json of each side, as `alpaca_eval evaluate --model_outputs` takes them, and
    annotations.json, where a preference from 1 to 2 is for the second output: there the baseline's
    is output_1.
    """
    for model, outputs in zip(pairs.names, (pairs.a, pairs.b), strict=True):
        rows = [
            {"instruction": prompt, "output": output, "generator": model, "dataset": "fpo"}
            for prompt, output in zip(pairs.prompts, outputs, strict=True)
        ]
        write_json(folder / file_name(model) / "model_outputs.json", rows)
    annotations = [
        {
            "instruction": prompt,
            "output_1": b,
            "output_2": a,
            "generator_1": pairs.names[1],
            "generator_2": pairs.names[0],
            "annotator": "fpo",
            "preference": None if math.isnan(preference) else 1 + preference,
        }
        for prompt, a, b, preference in zip(
            pairs.prompts, pairs.a, pairs.b, preferences, strict=True
        )
    ]
    write_json(folder / "annotations.json", annotations)


def _arena_hard(folder: Path, pairs: AnsweredTwice, preferences: Sequence[float]) -> None:
    """question.jsonl and model_answer/MODEL.jsonl, as gen_judgment.py of Arena-Hard-Auto reads."""
    del preferences
    questions = {uid(prompt): prompt for prompt in pairs.prompts}
    _lines(
        folder / "question.jsonl",
        [{"uid": key, "category": "fpo", "prompt": prompt} for key, prompt in questions.items()],
    )
    for model, outputs in zip(pairs.names, (pairs.a, pairs.b), strict=True):
        rows = [
            {
                "uid": uid(prompt),
                "ans_id": uid(model + prompt + output),
                "model": model,
                "messages": [
                    {"role": "user", "content": prompt},
                    {"role": "assistant", "content": {"answer": output}},
                ],
                "tstamp": 0,
            }
            for prompt, output in zip(pairs.prompts, outputs, strict=True)
        ]
        _lines(folder / "model_answer" / f"{file_name(model)}.jsonl", rows)


def _mt_bench(folder: Path, pairs: AnsweredTwice, preferences: Sequence[float]) -> None:
    """question.jsonl and model_answer/MODEL.jsonl, as FastChat's gen_judgment.py reads them."""
    del preferences
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(pairs.prompts), 1)}
    _lines(
        folder / "question.jsonl",
        [
            {"question_id": number, "category": "fpo", "turns": [prompt]}
            for prompt, number in numbers.items()
        ],
    )
    for model, outputs in zip(pairs.names, (pairs.a, pairs.b), strict=True):
        rows = [
            {
                "question_id": numbers[prompt],
                "answer_id": uid(model + prompt + output),
                "model_id": model,
                "choices": [{"index": 0, "turns": [output]}],
                "tstamp": 0,
            }
            for prompt, output in zip(pairs.prompts, outputs, strict=True)
        ]
        _lines(folder / "model_answer" / f"{file_name(model)}.jsonl", rows)


_WRITERS: dict[str, Callable[[Path, AnsweredTwice, Sequence[float]], None]] = {
    "alpaca-eval": _alpaca_eval,
    "arena-hard": _arena_hard,
    "mt-bench": _mt_bench,
}


def uid(text: str) -> str:
    """A short identity of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def file_name(model: str) -> str:
    """A model's name without what a path would read."""
    return "".join(c if c.isalnum() or c in "-_. " else "_" for c in model).strip(". ") or "model"


def _lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    text = as_lines(rows)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
