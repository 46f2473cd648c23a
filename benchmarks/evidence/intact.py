"""Whether a sample is intact: six checks that know nothing of what the pairs prefer.

A reward can be won by text that no one would want. So a sample counts only where it passes all of:
English; no run of four words more than three times; few unknown words; likely, and likelier after
its prompt than after another, under the model before training; an end that is one. Bounds are
percentiles of the wheel's own answers to the prompts that tune, in any mood, of which none trains.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.evidence.ground import Sampled
from fpo_core.backend.policy import Policy
from fpo_core.evaluation.texts import sequences
from fpo_core.judges.languages import language_of

NEUTRAL = "Please tell me something."
"""The other prompt, of which no answer is asked."""
REPEATS = 3
RARELY = 5.0
"""Percent of good answers that a bound turns away."""
CHECKS = ("english", "repeats", "words", "likely", "relevant", "ends")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_END = re.compile(r"[.!?…:;)\]\"'”’*~]\s*$")
_SCORED, _BATCH = 100, 16
"""Tokens of an answer whose likelihood is asked, and answers at once."""

Render = Callable[[str], list[int]]
"""Token ids of a prompt in the chat template."""


@dataclass(frozen=True)
class Detector:
    """The checks with their bounds."""

    policy: Policy
    """At its start, before training."""
    tokenizer: Any
    render: Render
    known: frozenset[str]
    """Words of the wheel's answers to the prompts that train."""
    bounds: dict[str, float]
    """Least value of the checks that have a scale."""

    def values(self, answers: Sequence[Sampled]) -> dict[str, np.ndarray]:
        """What each check looks at, (n,) each, higher being better."""
        own = self._likelihood([answer.prompt for answer in answers], answers)
        other = self._likelihood([NEUTRAL] * len(answers), answers)
        texts = [answer.text for answer in answers]
        return {
            "english": np.array([float(language_of(text) == "en") for text in texts]),
            "repeats": np.array([-_repeats(text) for text in texts], float),
            "words": np.array([-self._unknown(text) for text in texts]),
            "likely": own,
            "relevant": own - other,
            "ends": np.array([float(answer.cut or _ends(answer.text)) for answer in answers]),
        }

    def passed(self, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Which answers pass each check, (n,) of bool."""
        least = {"english": 1.0, "repeats": -float(REPEATS), "ends": 1.0} | self.bounds
        return {name: values[name] >= least[name] for name in CHECKS}

    def calibrated(self, good: Sequence[Sampled]) -> "Detector":
        """With the bounds that turn `RARELY` percent of good answers away."""
        values = self.values(good)
        names = ("words", "likely", "relevant")
        bounds = {name: float(np.percentile(values[name], RARELY)) for name in names}
        return Detector(self.policy, self.tokenizer, self.render, self.known, bounds)

    def _unknown(self, text: str) -> float:
        words = words_of(text)
        return sum(word not in self.known for word in words) / max(len(words), 1)

    def _likelihood(self, prompts: Sequence[str], answers: Sequence[Sampled]) -> np.ndarray:
        """Mean log-probability of a token of each answer after a prompt, in nats."""
        heads = [self.render(prompt) for prompt in prompts]
        ids = [
            head
            + (self.tokenizer(answer.text, add_special_tokens=False).input_ids or [0])[:_SCORED]
            for head, answer in zip(heads, answers, strict=True)
        ]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        means = np.zeros(len(ids))
        for start in range(0, len(order), _BATCH):
            places = order[start : start + _BATCH]
            scores = self.policy.score(
                sequences([ids[i] for i in places], [len(heads[i]) for i in places])
            )
            means[places] = np.asarray(scores.logps) / np.asarray(scores.lengths)
        return means


def words_of(text: str) -> list[str]:
    """Words in lower case."""
    return [word.replace("’", "'") for word in _WORD.findall(text.lower())]


def _repeats(text: str) -> int:
    """How often the most frequent run of four words occurs."""
    words = words_of(text)
    runs = Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
    return max(runs.values(), default=0)


def _ends(text: str) -> bool:
    """Whether the text ends as sentences do, or with a symbol such as an emoji."""
    text = text.rstrip()
    return bool(_END.search(text)) or (bool(text) and not text[-1].isascii())
