"""The best and the worst of several completions of a prompt."""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from fpo_core.errors import JudgeError
from fpo_core.judges.endpoint import EndpointJudge
from fpo_core.judges.judge import Judge, Texts


def require_replies(judge: Judge, prompts: Texts, a: Texts, b: Texts | None = None) -> None:
    """Raise JudgeError where an endpoint that was asked left questions without any reply.

    They would count as no verdict, and never be asked again.
    """
    if isinstance(judge, EndpointJudge) and (missing := judge.cost(prompts, a, b).calls):
        raise JudgeError(
            f"{judge.name} gave no reply to {missing} questions: see whether the server runs, then "
            "start again; replies so far are kept"
        )


def scores_of(judge: Judge, prompts: Texts, groups: Sequence[Texts]) -> list[list[float]]:
    """A score of each completion in the group of its prompt; NaN where there is no verdict.

    Of a judge that compares it is the mean preference over the other texts of the group. Equal
    texts of a group are judged once. Raises JudgeError as `require_replies`.
    """
    distinct = [list(dict.fromkeys(group)) for group in groups]
    of = _compared if judge.compares else _scored
    tables = [
        dict(zip(texts, scores, strict=True))
        for texts, scores in zip(distinct, of(judge, prompts, distinct), strict=True)
    ]
    return [[table[text] for text in group] for table, group in zip(tables, groups, strict=True)]


def _scored(judge: Judge, prompts: Texts, groups: Sequence[Texts]) -> list[list[float]]:
    asked = [prompt for prompt, group in zip(prompts, groups, strict=True) for _ in group]
    texts = [text for group in groups for text in group]
    scores = iter(judge.score(asked, texts))
    require_replies(judge, asked, texts)
    return [[next(scores) for _ in group] for group in groups]


def _compared(judge: Judge, prompts: Texts, groups: Sequence[Texts]) -> list[list[float]]:
    matches = [
        (i, x, y) for i, group in enumerate(groups) for x, y in combinations(range(len(group)), 2)
    ]
    asked = [prompts[i] for i, _, _ in matches]
    sides = [groups[i][x] for i, x, _ in matches], [groups[i][y] for i, _, y in matches]
    won = judge.prefer(asked, *sides)
    require_replies(judge, asked, *sides)
    shares: list[list[list[float]]] = [[[] for _ in group] for group in groups]
    for (i, x, y), share in zip(matches, won, strict=True):
        shares[i][x].append(share)
        shares[i][y].append(1 - share)
    # NaN stays NaN: a mean over some of the others would rank by who the others are.
    return [[float(np.mean(s)) if s else math.nan for s in group] for group in shares]


def best_and_worst(scores: Sequence[float]) -> tuple[int, int] | None:
    """Places of the highest and of the lowest score, the first of equals; NaN takes no part.

    None where fewer than two have a verdict; the same place twice where all of these are equal.
    """
    places = [i for i, score in enumerate(scores) if not math.isnan(score)]
    if len(places) < 2:
        return None
    best = max(places, key=lambda i: scores[i])
    worst = min(places, key=lambda i: scores[i])
    return (best, worst) if scores[best] > scores[worst] else (best, best)
