"""What every judge answers: how good a completion is, and which of two is better."""

import importlib
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fpo_core.errors import ConfigError, JudgeError, shorten

NO_VERDICT = math.nan
"""What stands for an answer that a judge did not give; never a tie."""
Texts = Sequence[str]


class Judge(Protocol):
    """Judges completions of prompts, all as text; NaN where it came to no verdict.

    Raises JudgeError where it can judge nothing at all.
    """

    name: str
    """What reports call it."""
    compares: bool
    """Whether it compares two completions itself, rather than their scores."""

    def score(self, prompts: Texts, completions: Texts) -> list[float]:
        """How good each completion is, higher being better; the scale is the judge's own."""
        ...

    def prefer(self, prompts: Texts, a: Texts, b: Texts) -> list[float]:
        """In [0, 1]: how likely the first completion is the better one; 0.5 is a tie."""
        ...


class ScoringJudge:
    """A judge by scores: `score_one` or `score` is the subclass's.

    The better score wins, unless the subclass knows what a difference of scores means.
    """

    name: str
    compares = False

    def score(self, prompts: Texts, completions: Texts) -> list[float]:
        """See `Judge`."""
        return [self.score_one(p, c) for p, c in zip(prompts, completions, strict=True)]

    def score_one(self, prompt: str, completion: str) -> float:
        """The score of one completion."""
        raise NotImplementedError

    def prefer(self, prompts: Texts, a: Texts, b: Texts) -> list[float]:
        """See `Judge`."""
        sides = (self.score(prompts, texts) for texts in (a, b))
        return [self.preference(left, right) for left, right in zip(*sides, strict=True)]

    def preference(self, left: float, right: float) -> float:
        """The preference that two scores imply."""
        if math.isnan(left) or math.isnan(right):
            return NO_VERDICT
        return 0.5 * ((left > right) + (left >= right))


def logistic(x: float) -> float:
    """1 / (1 + e^−x) without overflow."""
    return 0.5 * (1 + math.tanh(x / 2))


class FunctionJudge(ScoringJudge):
    """A function (prompt, completion) -> number."""

    def __init__(self, function: Callable[[str, str], Any], name: str) -> None:
        self._function, self.name = function, name

    def score_one(self, prompt: str, completion: str) -> float:
        """What the function returns. Raises JudgeError for anything but a number."""
        try:
            return float(self._function(prompt, completion))
        except Exception as error:  # whatever a user's function raises, or returns
            raise JudgeError(
                f"the judge {self.name} failed ({shorten(error)}), expected a number for a prompt "
                "and a completion"
            ) from error


def as_judge(value: Any, name: str) -> Judge:
    """A judge as it is, or a function (prompt, completion) -> number as one."""
    if callable(getattr(value, "prefer", None)) and callable(getattr(value, "score", None)):
        return value
    if not callable(value):
        raise ConfigError(
            f"the judge {name} is {type(value).__name__}, expected a function of a prompt and a "
            "completion, or an object with score and prefer"
        )
    return FunctionJudge(value, name)


def imported_judge(spec: str) -> Judge:
    """The judge that a `module:name` says, where Python finds the module."""
    module, _, name = spec.partition(":")
    here = os.getcwd()
    try:
        if here not in sys.path:  # where `python -m` would look, and a script of pip's does not
            sys.path.insert(0, here)
        value = getattr(importlib.import_module(module), name)
        return as_judge(value() if isinstance(value, type) else value, spec)
    except ConfigError:
        raise
    except Exception as error:  # whatever the user's module raises
        raise ConfigError(
            f"judge is {spec}, which cannot be imported ({shorten(error)}): check its name, and "
            "that Python finds the module"
        ) from None
