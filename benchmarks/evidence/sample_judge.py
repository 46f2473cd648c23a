"""Judging samples of the experiment: P(happy) by a classifier, and whether they are intact."""

import dataclasses
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from benchmarks.evidence.ground import Sampled
from benchmarks.evidence.intact import CHECKS, Detector, words_of
from benchmarks.evidence.moods import CHOSEN, Moods, Row
from fpo.model_setup import FROZEN, ModelSetup
from fpo.prompt_text import question_ids
from fpo_core.config import ModelConfig
from fpo_core.data.tokenise import DATE
from fpo_core.evaluation.ordinary_text import ORDINARY_TEXTS
from fpo_core.io.atomic import write_json
from fpo_core.judges.classifier import Classifier

ON_TASK, GOOD = 2.0, 200
"""Least `task` score of an answer that counts as good, and how many set the bounds."""


@dataclass(frozen=True)
class SampleJudge:
    """The two judges, fitted on answers to prompts of other parts than they judge."""

    classifier: Classifier
    detector: Detector

    @classmethod
    def fit(cls, moods: Moods, config: ModelConfig, kept: Path) -> Self:
        """A classifier of the answers to `train` prompts, and bounds of good ones to `tune`.

        The bounds are written to the file `kept`, and read where it is there.
        """
        train = moods.of("train")
        labels = np.array([float(row["of"] == CHOSEN) for row in train])
        classifier = Classifier.fit([row["response"] for row in train], labels)
        setup = ModelSetup(config)
        known = {w for text in ORDINARY_TEXTS for w in words_of(text)}
        known |= {word for row in train for word in words_of(row["response"])}

        def rendered(prompt: str) -> list[int]:
            return question_ids(setup.tokenizer, prompt, DATE).tolist()

        policy = setup.policy(FROZEN)
        detector = Detector(policy, setup.tokenizer, rendered, frozenset(known), {})
        if not kept.exists():
            detector = detector.calibrated(good_answers(moods.of("tune"))[:GOOD])
            write_json(kept, detector.bounds)
        bounds = json.loads(kept.read_text(encoding="utf-8"))
        return cls(classifier, dataclasses.replace(detector, bounds=bounds))

    def judged(self, answers: Sequence[Sampled]) -> list[dict[str, Any]]:
        """Of each answer P(happy), the checks that it fails, and its score."""
        preferred = self.classifier.score([], [answer.text for answer in answers])
        values = self.detector.values(answers)
        passed = self.detector.passed(values)
        return [
            {
                "p": 0.0 if np.isnan(p) else round(p, 4),
                "failed": [name for name in CHECKS if not passed[name][i]],
                "nll": round(-float(values["likely"][i]), 3),
            }
            for i, p in enumerate(preferred)
        ]


def good_answers(rows: Iterable[Row]) -> list[Sampled]:
    """Answers that are on their task, in any mood, in an order of chance."""
    good = [Sampled(row["prompt"], row["response"]) for row in rows if row["task"] >= ON_TASK]
    return random.Random(0).sample(good, len(good))
