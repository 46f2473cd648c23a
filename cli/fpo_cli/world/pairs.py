"""Preference pairs that differ in one attribute of the reply, in TRL's conversational format."""

import json
import random
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fpo_cli.world.grammar import (
    ATTRIBUTES,
    Prompt,
    make_phrases,
    make_prompt,
    make_reply,
    random_traits,
    render,
    rewrite,
)
from fpo_cli.world.unrelated import make_unrelated

Row = dict[str, Any]


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
) -> list[Row]:
    """`n` pairs whose replies differ in `attribute`, each with a prompt of its own.

    `prefer` is the chosen side's value, by default the second in `ATTRIBUTES`. The other
    attributes are random and the same on both sides, which then also share the phrases that do not
    depend on `attribute`; with `vary_others` each side is drawn apart. `avoid` holds prompts not to
    use, such as those of another split.
    """
    if attribute not in ATTRIBUTES:
        raise ValueError(f"Unknown attribute {attribute!r}; choose one of {', '.join(ATTRIBUTES)}.")
    prefer = prefer or ATTRIBUTES[attribute][1]
    if prefer not in ATTRIBUTES[attribute]:
        allowed = " or ".join(ATTRIBUTES[attribute])
        raise ValueError(f"{attribute} cannot be {prefer!r}; choose {allowed}.")
    rng, rows, surplus = random.Random(seed), [], 0
    for prompt in make_prompts(n, rng, avoid):

        def draw(item: int = prompt.item) -> tuple[str, str]:
            traits = random_traits(rng, **{attribute: prefer})
            other = traits.flipped(attribute)
            phrases = make_phrases(rng, item, traits)
            if vary_others:
                other = random_traits(rng, **{attribute: getattr(other, attribute)})
                return render(phrases, traits), make_reply(rng, item, other)
            return render(phrases, traits), render(
                rewrite(rng, item, phrases, traits, other), other
            )

        chosen, rejected = _matched(draw, surplus)
        surplus += length(chosen) - length(rejected)
        rows.append(_row(prompt.text, chosen, rejected))
    return rows


def _matched(draw: Callable[[], tuple[str, str]], surplus: int) -> tuple[str, str]:
    """A pair that leaves the chosen side's total length no further ahead, or behind, than it was.

    Drawing again until then keeps the two sides' lengths equal on average. The draws are bounded,
    because of two replies with the same phrases JSON is always the longer.
    """
    for _ in range(20):
        chosen, rejected = draw()
        if abs(surplus + length(chosen) - length(rejected)) <= max(abs(surplus), 6):
            return chosen, rejected
    return draw()


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
