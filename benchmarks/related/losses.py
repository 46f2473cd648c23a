"""The world under every link, ASFT and ORPO; adaptive scaling on pairs of known strength."""

import json
import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.evidence.ranks import spearman
from benchmarks.related.runs import SEEDS, Cases, Pairs, World, intervals, over_seeds
from fpo.world import assets, score
from fpo.world.grammar import Traits, make_phrases, make_prompt, random_traits, render, rewrite
from fpo_core.arrays import numpy_ops
from fpo_core.config import LINKS, ObjectiveConfig
from fpo_core.loss.links import aps_tau
from fpo_core.loss.objectives import objective_terms

BETA = 70.0
"""The quickstart's: its pairs are near-ties of a few tokens."""
CLEAR = 0.9
"""The oracle's gap from which on a pair is clear."""
SAMPLES, HELD_OUT, LINK_STEPS = 32, 60, 40


def links(world: World) -> Cases:
    """Oracle's score, accuracy and drift of the losses on odds, and of each link."""
    train, valid = world.load(assets().train), world.load(assets().valid, most=HELD_OUT)
    prompts = held_out_prompts()
    first = ("logistic", "aps")
    cases = {
        link: ObjectiveConfig(objective="dpo-norm", beta=BETA, link=link)
        for link in (*first, *(link for link in LINKS if link not in first))
    }
    cases = {name: ObjectiveConfig(objective=name) for name in ("asft", "orpo")} | cases
    start: Cases = {"start": partial(world_start, world, prompts)}
    return start | {
        name: partial(_with_link, world, train, valid, prompts, objective)
        for name, objective in cases.items()
    }


def held_out_prompts() -> list[str]:
    """What samples are drawn for."""
    lines = assets().valid.read_text(encoding="utf-8").splitlines()[:SAMPLES]
    return [json.loads(line)["prompt"][0]["content"] for line in lines]


def _with_link(
    world: World, train: Pairs, valid: Pairs, prompts: list[str], objective: ObjectiveConfig
) -> dict[str, Any]:
    yardstick = ObjectiveConfig(objective="dpo-norm", beta=1.0)
    rows = []
    for seed in range(SEEDS):
        seen: list[dict[str, float]] = []
        world.train(
            train,
            objective,
            seed,
            steps=LINK_STEPS,
            look=lambda s=seen: s.append(world.metrics(valid, yardstick)),
        )
        rows.append(
            world.samples(prompts, seed)
            | {
                "raw_accuracy": seen[-1]["fpo/raw_accuracy"],
                "chosen": seen[-1]["logps/chosen"] - seen[0]["logps/chosen"],
                "chosen_lowest": min(s["logps/chosen"] for s in seen) - seen[0]["logps/chosen"],
                "rejected": seen[-1]["logps/rejected"] - seen[0]["logps/rejected"],
            }
        )
    never = sum(row["chosen_lowest"] >= 0 for row in rows)
    return intervals(rows) | {"chosen_never_below_its_start": never}


def world_start(world: World, prompts: list[str]) -> dict[str, float]:
    """The oracle's score and the entropy before any step."""
    world.policy.load_trained(world.start)
    drawn = world.samples(prompts, 0)
    return {"oracle": drawn["oracle"], "entropy": drawn["entropy"]}


def graded_pairs(count: int, seed: int) -> Iterator[tuple[dict[str, Any], float]]:
    """Pairs that are clear, polite against rude at both ends, or unclear, of one rude end; and the
    oracle's gap."""
    rng = random.Random(seed)
    while count:
        prompt = make_prompt(rng)
        polite = random_traits(rng, politeness="polite")
        best = make_phrases(rng, prompt.item, polite)
        if not {"opening", "closing"} <= best.keys():
            continue
        worst = rewrite(rng, prompt.item, best, polite, polite.flipped("politeness"))
        mixed = {part: (worst if part == "closing" else best)[part] for part in best}
        sides = [(best, worst), (best, mixed), (mixed, worst)]
        chosen, rejected = sides[(0, 0, 1, 2)[rng.randrange(4)]]
        texts = [_text(side, polite) for side in (chosen, rejected)]
        gap = np.subtract(*(score(prompt.text, text).politeness for text in texts))
        yield _row(prompt.text, *texts), float(gap)
        count -= 1


def _text(phrases: dict[str, str], traits: Traits) -> str:
    return render(phrases, traits)


def _row(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def strength(world: World) -> Cases:
    """τ* beside the oracle's gap; margins of clear and unclear pairs; wrong labels on these."""
    rows, gaps = zip(*graded_pairs(600, 1), strict=True)
    train_gaps, held_out = np.array(gaps[:480]), np.array(gaps[480:])
    valid = world.rows(rows[480:])
    flips = np.random.default_rng(0).random(480) < 0.1
    wrong = [
        _flipped(r) if f and g < CLEAR else r for r, f, g in zip(rows, flips, gaps, strict=False)
    ]
    cases: Cases = {"flipped": lambda: int((flips & (train_gaps < CLEAR)).sum())}
    for labels, data in {"clean": rows[:480], "flipped": wrong[:480]}.items():
        pairs = world.rows(data)
        for link in ("logistic", "aps"):
            run = partial(_margins, world, pairs, valid, link, held_out)
            cases[f"{labels} {link}"] = partial(over_seeds, run)
    return cases


def _flipped(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"chosen": row["rejected"], "rejected": row["chosen"]}


def _margins(
    world: World,
    pairs: Pairs,
    valid: Pairs,
    link: Any,
    gaps: np.ndarray,
    seed: int,
) -> dict[str, float]:
    objective = ObjectiveConfig(objective="dpo-norm", beta=BETA, link=link)
    world.train(pairs, objective, seed)
    scores = world.score(valid.tokens).astype(np.float64)
    terms = objective_terms(numpy_ops, scores, valid.logps.reshape(-1), objective)
    u, clear = terms.logits(), gaps > CLEAR
    adaptive = ObjectiveConfig(objective="dpo-norm", beta=BETA, link="aps")
    return {
        "spearman_of_tau": spearman(aps_tau(numpy_ops, terms, adaptive), gaps),
        "accuracy": float((u > 0).mean()),
        "accuracy_unclear": float((u[~clear] > 0).mean()),
        "margin_clear": float(u[clear].mean()),
        "margin_unclear": float(u[~clear].mean()),
        "margin_clear_less_unclear": float(u[clear].mean() - u[~clear].mean()),
    }
