"""The world under every link, ASFT and ORPO; adaptive scaling on pairs of known strength."""

import json
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.evidence.ranks import spearman
from benchmarks.related.runs import SEEDS, Pairs, World, interval
from fpo.world import assets, score
from fpo.world.grammar import Traits, make_phrases, make_prompt, random_traits, render, rewrite
from fpo_core.arrays import numpy_ops
from fpo_core.config import LINKS, ObjectiveConfig
from fpo_core.loss.links import aps_tau
from fpo_core.loss.objectives import objective_terms

BETA = 70.0
"""The quickstart's: its pairs are near-ties of a few tokens."""
SAMPLES, HELD_OUT, LINK_STEPS = 32, 60, 40


def links(world: World) -> Iterator[dict[str, Any]]:
    """Oracle's score, accuracy and drift of the losses on odds, and of each link."""
    train, valid = world.load(assets().train), world.load(assets().valid, most=HELD_OUT)
    lines = assets().valid.read_text(encoding="utf-8").splitlines()[:SAMPLES]
    prompts = [json.loads(line)["prompt"][0]["content"] for line in lines]
    first = ("logistic", "aps")
    cases = {
        link: ObjectiveConfig(objective="dpo-norm", beta=BETA, link=link)
        for link in (*first, *(link for link in LINKS if link not in first))
    }
    cases = {name: ObjectiveConfig(objective=name) for name in ("asft", "orpo")} | cases
    yardstick = ObjectiveConfig(objective="dpo-norm", beta=1.0)
    result: dict[str, Any] = {"start": world_start(world, prompts)}
    for name, objective in cases.items():
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
            drawn = world.samples(prompts, seed)
            rows.append(
                {
                    "oracle": drawn["oracle"],
                    "entropy": drawn["entropy"],
                    "raw_accuracy": seen[-1]["fpo/raw_accuracy"],
                    "chosen": seen[-1]["logps/chosen"] - seen[0]["logps/chosen"],
                    "chosen_lowest": min(s["logps/chosen"] for s in seen) - seen[0]["logps/chosen"],
                    "rejected": seen[-1]["logps/rejected"] - seen[0]["logps/rejected"],
                }
            )
            print(name, seed, rows[-1], flush=True)
        result[name] = {key: interval([row[key] for row in rows]) for key in rows[0]}
        result[name]["chosen_never_below_its_start"] = sum(r["chosen_lowest"] >= 0 for r in rows)
        yield result


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


def strength(world: World) -> Iterator[dict[str, Any]]:
    """τ* beside the oracle's gap; margins of clear and unclear pairs; wrong labels on these."""
    rows, gaps = zip(*graded_pairs(600, 1), strict=True)
    train_gaps, held_out = np.array(gaps[:480]), np.array(gaps[480:])
    valid = world.rows(rows[480:])
    clear = held_out > 0.9
    flips = np.random.default_rng(0).random(480) < 0.1
    wrong = [
        _flipped(r) if f and g < 0.9 else r for r, f, g in zip(rows, flips, gaps, strict=False)
    ]
    result: dict[str, Any] = {"flipped": int((flips & (train_gaps < 0.9)).sum())}
    for labels, data in {"clean": rows[:480], "flipped": wrong[:480]}.items():
        pairs = world.rows(data)
        for link in ("logistic", "aps"):
            seen = [
                _margins(world, pairs, valid, link, seed, held_out, clear) for seed in range(SEEDS)
            ]
            print(labels, link, seen, flush=True)
            result[f"{labels} {link}"] = {k: interval([s[k] for s in seen]) for k in seen[0]}
            yield result


def _flipped(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"chosen": row["rejected"], "rejected": row["chosen"]}


def _margins(
    world: World,
    pairs: Pairs,
    valid: Pairs,
    link: Any,
    seed: int,
    gaps: np.ndarray,
    clear: np.ndarray,
) -> dict[str, float]:
    objective = ObjectiveConfig(objective="dpo-norm", beta=BETA, link=link)
    world.train(pairs, objective, seed)
    scores = world.score(valid.tokens).astype(np.float64)
    terms = objective_terms(numpy_ops, scores, valid.logps.reshape(-1), objective)
    u = terms.logits()
    adaptive = ObjectiveConfig(objective="dpo-norm", beta=BETA, link="aps")
    return {
        "spearman_of_tau": spearman(aps_tau(numpy_ops, terms, adaptive), gaps),
        "accuracy": float((u > 0).mean()),
        "accuracy_unclear": float((u[~clear] > 0).mean()),
        "margin_clear": float(u[clear].mean()),
        "margin_unclear": float(u[~clear].mean()),
        "margin_clear_less_unclear": float(u[clear].mean() - u[~clear].mean()),
    }
