"""Greedy answers to the same prompts at several times: what a run did to what a model says."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fpo_core.errors import DataError
from fpo_core.evaluation.general_questions import GENERAL_QUESTIONS
from fpo_core.judges.answer_files import FilePrompt, read_prompts

_N = 4
"""Length of the n-grams whose repetition is measured."""


@dataclass(frozen=True)
class Question:
    """A prompt, and what a right answer to it holds."""

    prompt: str
    expected: str | None = None
    """Words, of which one is in a right answer: separated by |. None where any answer will do."""
    kind: Literal["general", "held-out"] = "general"

    def is_right(self, answer: str) -> bool | None:
        """Whether an answer holds one of the expected words, as a word; None without any."""
        if self.expected is None:
            return None
        words = "|".join(re.escape(word.strip()) for word in self.expected.split("|"))
        return re.search(rf"(?<!\w)(?:{words})(?!\w)", answer, re.IGNORECASE) is not None


@dataclass(frozen=True)
class Answer:
    """What a model said."""

    question: Question
    text: str
    repetition: float
    """See `repetition`."""

    @property
    def right(self) -> bool | None:
        """See `Question.is_right`."""
        return self.question.is_right(self.text)


def questions_of(path: str | None) -> list[Question]:
    """The prompts of a file; without one, ten general questions.

    A row of a file may hold `expected`, the words between bars of which a right answer holds one.
    Raises DataError for anything else, and as `read_prompts`.
    """
    if path is None:
        return [Question(prompt, expected) for prompt, expected in GENERAL_QUESTIONS]
    return [Question(prompt.text, _expected(prompt)) for prompt in read_prompts(Path(path))]


def _expected(prompt: FilePrompt) -> str | None:
    expected = prompt.row.get("expected")
    words = expected.split("|") if isinstance(expected, str) else ["x"]
    if not (isinstance(expected, str | None) and all(word.strip() for word in words)):
        raise DataError(
            f'{prompt.where} has no words under expected, expected them like "words|or these": '
            "write some, or leave it out"
        )
    return expected


def repetition(ids: np.ndarray) -> float:
    """Share of a completion's 4-grams of tokens that it has had before: 0 for one without any.

    Seq-rep-4 of Welleck et al. (arXiv 1908.04319).
    """
    grams = [tuple(ids[i : i + _N].tolist()) for i in range(len(ids) - _N + 1)]
    return 1 - len({*grams}) / len(grams) if grams else 0.0


def summary(answers: Sequence[Answer]) -> dict[str, float]:
    """How many answers are right (`facts`), of how many that can be (`questions`), and their mean
    repetition.
    """
    if not answers:
        return {}
    rights = [answer.right for answer in answers if answer.right is not None]
    counts = {"facts": sum(rights), "questions": len(rights)} if rights else {}
    return counts | {"repetition": float(np.mean([answer.repetition for answer in answers]))}


def compared(before: Sequence[Answer], after: Sequence[Answer]) -> list[dict[str, Any]]:
    """Answers to the same questions as JSON values, held-out prompts first.

    Each is {"kind": "general" or "held-out", "prompt", "before", "after"} and, where a right answer
    is known, "expected" (words between bars), "right_before" and "right_after". Without a `before`
    its keys are left out.
    """
    samples = []
    for i, now in enumerate(after):
        question = now.question
        sample: dict[str, Any] = {"kind": question.kind, "prompt": question.prompt}
        sides = {"before": before[i], "after": now} if before else {"after": now}
        sample |= {name: side.text for name, side in sides.items()}
        if question.expected is not None:
            rights = {f"right_{name}": side.right for name, side in sides.items()}
            sample |= {"expected": question.expected, **rights}
        samples.append(sample)
    return samples
