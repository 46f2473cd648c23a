"""SPO's degrees: whether replies lose what the world prefers, and what comes of learning them."""

import json
from functools import partial

import numpy as np

from benchmarks.related.losses import BETA, HELD_OUT, LINK_STEPS, held_out_prompts
from benchmarks.related.runs import Cases, Pairs, World, over_seeds
from fpo.world import assets
from fpo.world.oracle import marker_words
from fpo.world.template import words
from fpo_core.config import ObjectiveConfig
from fpo_core.loss.metrics import raw_accuracy
from fpo_core.pairs.keywords import without_keywords, without_random_words
from fpo_core.train.degrees import Degrader

LEVELS = ObjectiveConfig.degree_levels
REMOVALS = {"keywords": True, "random": False}
GAMMAS = (1.0, 10.0)


def degrees(world: World) -> Cases:
    """No degrees, and both removals under two weights γ; markers of politeness at each level."""
    del world  # whose policy has no head
    judged = World(LEVELS)
    train, valid = judged.load(assets().train), judged.load(assets().valid, most=HELD_OUT)
    prompts = held_out_prompts()
    cases: Cases = {"markers": _markers}
    run = partial(_run, judged, train, valid, prompts)
    cases["none"] = partial(over_seeds, partial(run, 0.0, None))
    for gamma in GAMMAS:
        for removal, keywords in REMOVALS.items():
            case = partial(run, gamma, keywords)
            cases[f"{removal}, γ {gamma:g}"] = partial(over_seeds, case)
    return cases


def _markers() -> dict[str, list[float]]:
    """Mean words of politeness, or of its opposite, in held-out replies by level."""
    marked = frozenset().union(*marker_words("politeness"))
    rows = map(json.loads, assets().valid.read_text(encoding="utf-8").splitlines())
    replies = [row[side][0]["content"] for row in rows for side in ("chosen", "rejected")]
    draw = np.random.PCG64(0)

    def mean(share: float, *, keywords: bool) -> float:
        texts = (
            without_keywords(reply, share)
            if keywords
            else without_random_words(reply, share, lambda n: draw.random_raw(n).tolist())
            for reply in replies
        )
        return float(np.mean([sum(word in marked for word in words(text)) for text in texts]))

    return {
        removal: [mean(level / LEVELS, keywords=keywords) for level in range(LEVELS)]
        for removal, keywords in REMOVALS.items()
    }


def _run(
    world: World,
    train: Pairs,
    valid: Pairs,
    prompts: list[str],
    gamma: float,
    keywords: bool | None,
    seed: int,
) -> dict[str, float]:
    degrader = None if keywords is None else Degrader(world.tokenizer, LEVELS, keywords, seed)
    objective = ObjectiveConfig(objective="dpo-norm", beta=BETA, degree_weight=gamma)
    world.train(train, objective, seed, steps=LINK_STEPS, degrader=degrader)
    scores = world.score(valid.tokens, degrader)
    told = {} if scores.degree_hit is None else {"degree_hit": float(scores.degree_hit.mean())}
    return world.samples(prompts, seed) | {"raw_accuracy": raw_accuracy(scores)} | told
