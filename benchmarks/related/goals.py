"""Reward-augmented data: whether the oracle's score of samples follows the goal asked for."""

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.related.losses import BETA, graded_pairs
from benchmarks.related.runs import Cases, Pairs, World, over_seeds
from fpo.world import score
from fpo_core.config import ObjectiveConfig
from fpo_core.config.tools import GOAL_TEXT
from fpo_core.loss.scores import rejected
from fpo_core.pairs.goals import GoalTemplate, row_of
from fpo_core.pairs.messages import text_of
from fpo_core.pairs.pair import Pair, parse_pair

TEMPLATE = GoalTemplate(GOAL_TEXT, 1, 10)
GOALS = (1, 4, 7, 10)
PAIRS, HELD_OUT, PROMPTS, STEPS = 480, 100, 32, 80
GOOD = 5.0
"""From this score on a rejected reply is a good one."""


def goals(world: World) -> Cases:
    """RA, its control without the swap, and DPO on the plain pairs.

    Each takes the same steps of as many rows: RA sees half of the pairs, twice (Half-RA).
    """
    rows, _ = zip(*graded_pairs(PAIRS + HELD_OUT, 2), strict=True)
    pairs = [parse_pair(row, i, f"row {i}") for i, row in enumerate(rows)]
    scores = [_scores(pair) for pair in pairs]
    prompts = [text_of(pair.prompt or "") for pair in pairs[PAIRS : PAIRS + PROMPTS]]
    good = [i for i in range(PAIRS, PAIRS + HELD_OUT) if scores[i][1] >= GOOD]
    held_out = world.rows([row_of(pairs[i]) for i in good])
    data: dict[str, tuple[list[dict[str, Any]], GoalTemplate | None]] = {
        "augmented": (list(_augmented(pairs, scores, swap=True)), TEMPLATE),
        "unswapped": (list(_augmented(pairs, scores, swap=False)), TEMPLATE),
        "dpo": ([row_of(pair) for pair in pairs[:PAIRS]], None),
    }
    counted: Cases = {"good_rejected": lambda: len(good)}
    return counted | {
        name: partial(over_seeds, partial(_run, world, world.rows(rows), goal, prompts, held_out))
        for name, (rows, goal) in data.items()
    }


def _scores(pair: Pair) -> tuple[float, float]:
    prompt, chosen, rejected = map(text_of, pair.split())
    shares = (score(prompt, side).preferred for side in (chosen, rejected))
    first, second = (round(1 + 9 * share, 1) for share in shares)
    return first, second


def _augmented(
    pairs: list[Pair], scores: list[tuple[float, float]], *, swap: bool
) -> Iterator[dict[str, Any]]:
    halves = itertools.islice(zip(pairs, scores, strict=True), PAIRS // 2)
    for pair, rated in halves:
        if rated[0] != rated[1]:
            yield from map(row_of, TEMPLATE.augment(pair, rated, swap=swap))


def _run(
    world: World,
    data: Pairs,
    template: GoalTemplate | None,
    prompts: list[str],
    held_out: Pairs,
    seed: int,
) -> dict[str, float]:
    world.train(data, ObjectiveConfig(objective="dpo-norm", beta=BETA), seed, steps=STEPS)
    fall = rejected(world.score(held_out.tokens).logps) - held_out.logps[1]
    values = {"good_rejected_logp": float(fall.mean())}
    if template is None:  # no goal is asked for: these samples stand beside those of the top
        return values | {f"oracle_at_{GOALS[-1]}": world.samples(prompts, seed)["oracle"]}
    at = [world.samples(prompts, seed, template, goal)["oracle"] for goal in GOALS]
    slope = float(np.polyfit(GOALS, at, 1)[0])
    return values | {"slope": slope} | {f"oracle_at_{g}": v for g, v in zip(GOALS, at, strict=True)}
