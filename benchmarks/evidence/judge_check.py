"""Whether the judges tell what they are asked: on the wheel's answers to the prompts that test."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.evidence.ground import Sampled
from benchmarks.evidence.intact import CHECKS
from benchmarks.evidence.moods import CHOSEN, Moods
from benchmarks.evidence.sample_judge import SampleJudge, good_answers
from fpo_core.judges.classifier import auc

COUNT = 100
Values = dict[str, np.ndarray]


def validated(judge: SampleJudge, moods: Moods) -> dict[str, Any]:
    """AUC of the classifier, of the detector for each corruption, and shares of good answers."""
    rows = moods.of("test")
    scores = np.array(judge.classifier.score([], [row["response"] for row in rows]))
    happy = np.array([row["of"] == CHOSEN for row in rows])
    sad = np.array([row["of"] == "depressed" for row in rows])
    rng = random.Random(0)
    good = good_answers(rows)[:COUNT]
    detector = judge.detector
    reference = detector.values(good)
    whole = _least_rank(reference, reference)
    found: dict[str, Any] = {
        "classifier": {
            "answers": len(rows),
            "auc_happy_rest": auc(scores, happy),
            "auc_happy_depressed": auc(scores[happy | sad], happy[happy | sad]),
        },
        "bounds": detector.bounds,
        "good_answers": COUNT,
        "good_accepted": _accepted(detector.passed(reference)),
        "corrupted": {},
    }
    for name, corrupt in CORRUPTIONS.items():
        values = detector.values(corrupt(good, rng))
        ranks = np.concatenate([whole, _least_rank(values, reference)])
        found["corrupted"][name] = {
            "auc": auc(ranks, np.arange(len(ranks)) < COUNT),
            "accepted": _accepted(detector.passed(values)),
        }
    return found


def _accepted(passed: Values) -> float:
    """The share of answers that pass every check."""
    return float(np.mean(np.all([passed[name] for name in CHECKS], axis=0)))


def _least_rank(values: Values, reference: Values) -> np.ndarray:
    """Of each answer the lowest of its checks, each as its rank among good answers, (n,)."""
    ranks = [(reference[c][None, :] <= values[c][:, None]).mean(1) for c in CHECKS]
    return np.min(ranks, axis=0)


def _shuffled(answers: Sequence[Sampled], rng: random.Random) -> list[Sampled]:
    return [Sampled(a.prompt, " ".join(rng.sample(w := a.text.split(), len(w)))) for a in answers]


def _swapped(answers: Sequence[Sampled], rng: random.Random) -> list[Sampled]:
    """Each answer after the prompt of another."""
    del rng
    prompts = [answer.prompt for answer in answers]
    return [
        Sampled(next(p for p in prompts[i + 1 :] + prompts if p != a.prompt), a.text)
        for i, a in enumerate(answers)
    ]


def _looped(answers: Sequence[Sampled], rng: random.Random) -> list[Sampled]:
    """The first sentence or so, again and again."""
    del rng
    return [Sampled(a.prompt, " ".join([*a.text.split()[:12]] * 6)) for a in answers]


def _truncated(answers: Sequence[Sampled], rng: random.Random) -> list[Sampled]:
    """Cut within a sentence."""
    del rng
    return [
        Sampled(a.prompt, " ".join(a.text.split()[: len(a.text.split()) // 2]).rstrip(".!?,;:"))
        for a in answers
    ]


CORRUPTIONS: dict[str, Callable[[Sequence[Sampled], random.Random], list[Sampled]]] = {
    "words shuffled": _shuffled,
    "another prompt's answer": _swapped,
    "a loop": _looped,
    "cut in the middle": _truncated,
}
