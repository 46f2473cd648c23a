"""Preference pairs that differ in one attribute of the reply, in TRL's conversational format."""

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from unrelated_texts import make_unrelated

from fpo.world.grammar import (
    ATTRIBUTES,
    Prompt,
    make_phrases,
    make_prompt,
    make_reply,
    random_traits,
    render,
    rewrite,
)

# The shipped pairs are make_splits(PAIRS_ATTRIBUTE, PAIRS_SEED) at the shipped model's likelihood.
PAIRS_ATTRIBUTE = "politeness"
PAIRS_SEED = 20
UNRELATED_SEED = 40

Row = dict[str, Any]
Likelihood = Callable[[str, str], float]
"""The mean log-probability of a reply (second) to a prompt (first) under some model, in nats."""

WORDS_AHEAD = 6
"""How far the chosen side may come to be ahead in total, in words over all pairs."""
NATS_AHEAD = 0.01
"""The same in mean log-probability, in nats a token: a pair then differs by at most twice this."""
DRAWS = 100


def make_prompts(n: int, rng: random.Random, avoid: Iterable[str] = ()) -> list[Prompt]:
    """`n` prompts that differ from each other and from the texts in `avoid`."""
    seen, prompts = set(avoid), []
    while len(prompts) < n:
        prompt = make_prompt(rng)
        if prompt.text not in seen:
            seen.add(prompt.text)
            prompts.append(prompt)
    return prompts


def make_pairs(
    attribute: str,
    n: int,
    seed: int,
    *,
    prefer: str | None = None,
    vary_others: bool = False,
    avoid: Iterable[str] = (),
    likelihood: Likelihood | None = None,
) -> list[Row]:
    """`n` pairs whose replies differ in `attribute`, each with a prompt of its own.

    `prefer` is the chosen side's value, by default the second in `ATTRIBUTES`. The other
    attributes are random and the same on both sides, which then also share the phrases that do not
    depend on `attribute`; with `vary_others` each side is drawn apart. `avoid` holds prompts not to
    use, such as those of another split. The two sides are matched in length on average, or, given a
    model's `likelihood`, pair by pair in that: near-ties, which a small change of the model ranks
    right. Of two calls that differ in `n` alone, the shorter gives the longer's first rows.
    """
    prefer = _preferred(attribute, prefer)
    measure, slack = (_length, WORDS_AHEAD) if likelihood is None else (likelihood, NATS_AHEAD)
    rng, rows, surplus = random.Random(f"replies {seed}"), [], 0.0
    for prompt in make_prompts(n, random.Random(seed), avoid):

        def ahead(chosen: str, rejected: str, prompt: str = prompt.text) -> float:
            return measure(prompt, chosen) - measure(prompt, rejected)

        draws = _draws(rng, prompt.item, attribute, prefer, vary_others)
        chosen, rejected = _matched(draws, ahead, surplus, slack)
        surplus += ahead(chosen, rejected)
        rows.append(_row(prompt.text, chosen, rejected))
    return rows


def _preferred(attribute: str, prefer: str | None) -> str:
    if attribute not in ATTRIBUTES:
        raise ValueError(f"Unknown attribute {attribute!r}; choose one of {', '.join(ATTRIBUTES)}.")
    if prefer is not None and prefer not in ATTRIBUTES[attribute]:
        allowed = " or ".join(ATTRIBUTES[attribute])
        raise ValueError(f"{attribute} cannot be {prefer!r}; choose {allowed}.")
    return prefer or ATTRIBUTES[attribute][1]


def _draws(
    rng: random.Random, item: int, attribute: str, prefer: str, vary_others: bool
) -> Iterator[tuple[str, str]]:
    """Endless pairs of a chosen and a rejected reply about the item."""
    while True:
        traits = random_traits(rng, **{attribute: prefer})
        other = traits.flipped(attribute)
        phrases = make_phrases(rng, item, traits)
        if vary_others:
            other = random_traits(rng, **{attribute: getattr(other, attribute)})
            rejected = make_reply(rng, item, other)
        else:
            rejected = render(rewrite(rng, item, phrases, traits, other), other)
        yield render(phrases, traits), rejected


def _matched(
    draws: Iterator[tuple[str, str]],
    ahead: Callable[[str, str], float],
    surplus: float,
    slack: float,
) -> tuple[str, str]:
    """The first pair that leaves the chosen side no further ahead, or behind, in total.

    `surplus` is how far ahead it was before; anything up to `slack` will do. This keeps the two
    sides equal on average in what `ahead` gives. The draws are bounded, because of two replies with
    the same phrases JSON is always the longer.
    """
    for chosen, rejected in islice(draws, DRAWS):
        if abs(surplus + ahead(chosen, rejected)) <= max(abs(surplus), slack):
            return chosen, rejected
    return next(draws)


def _length(_prompt: str, reply: str) -> float:
    return length(reply)


def length(text: str) -> int:
    """Words and runs of punctuation in `text`: close to its number of tokens."""
    return len(re.findall(r"\w+|[^\w\s]+", text))


def _row(prompt: str, chosen: str, rejected: str) -> Row:
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def make_splits(
    attribute: str, seed: int, *, n_train: int = 800, n_valid: int = 200, **options: Any
) -> tuple[list[Row], list[Row]]:
    """Training and validation pairs that share no prompt; `options` go to `make_pairs`."""
    valid = make_pairs(attribute, n_valid, seed, **options)
    asked = [row["prompt"][0]["content"] for row in valid]
    return make_pairs(attribute, n_train, seed + 1, avoid=asked, **options), valid


def make_unrelated_rows(n: int, seed: int) -> list[Row]:
    """`n` different unrelated texts, as rows {"text": ...}."""
    rng, texts = random.Random(seed), {}
    while len(texts) < n:
        texts[make_unrelated(rng)] = None
    return [{"text": text} for text in texts]


def dump_jsonl(rows: Iterable[Row], path: Path) -> None:
    """Write one JSON object a line, UTF-8, accents kept as they are."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
