"""The exact judge of the quickstart world: scores a completion from the grammar's own tables.

Each attribute is scored from the words that only one of its two values can produce. A completion
is well formed when the grammar can produce it, whatever item it names and even if it is polite at
one end and rude at the other: that is half polite, not broken.
"""

import itertools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from fpo.world.grammar import (
    ATTRIBUTES,
    JSON_KEYS,
    STRUCTURES,
    Traits,
    item_slots,
    part_grammar,
)
from fpo.world.template import to_regex, vocabulary, words
from fpo.world.words import ITEMS

PARTS = ("opening", "view", "advice", "closing")


@dataclass(frozen=True)
class OracleScore:
    """Scores in [0, 1] of one completion; an attribute that shows no sign either way is 0.5.

    An attribute's score is 1 for its second value in `grammar.ATTRIBUTES`: polite, positive,
    french, json.
    """

    politeness: float
    sentiment: float
    language: float
    format: float
    well_formed: float
    on_topic: float

    @property
    def preferred(self) -> float:
        """What the quickstart's pairs prefer: politeness, worth nothing in a broken reply."""
        return self.politeness * self.well_formed * self.on_topic


def score(prompt: str, completion: str) -> OracleScore:
    """Score `completion` as a reply to `prompt`; any text is accepted."""
    reply_words = words(completion)
    return OracleScore(
        politeness=_lexical(reply_words, "politeness"),
        sentiment=_lexical(reply_words, "sentiment"),
        language=_lexical(reply_words, "language"),
        format=_format(completion),
        well_formed=float(is_well_formed(completion)),
        on_topic=float(_is_on_topic(words(prompt), reply_words)),
    )


def is_well_formed(completion: str) -> bool:
    """Whether the grammar can produce this text for some item, traits and mix of manners."""
    text = completion.strip()
    return any(pattern.fullmatch(text) for pattern in _reply_patterns())


def _lexical(reply_words: list[str], attribute: str) -> float:
    """The share of the second value's words among both values' words."""
    first, second = marker_words(attribute)
    against = sum(word in first for word in reply_words)
    in_favour = sum(word in second for word in reply_words)
    return 0.5 if against + in_favour == 0 else in_favour / (against + in_favour)


def _format(completion: str) -> float:
    """1 for a JSON object, 0 for plain text, 0.5 for nothing or for broken JSON."""
    text = completion.strip()
    try:
        return float(isinstance(json.loads(text), dict))
    except (ValueError, RecursionError):
        return 0.5 if not text or text[0] in '{["' else 0.0


def _is_on_topic(asked: list[str], reply_words: list[str]) -> bool:
    """Whether the reply names the prompt's item, in either language, and no other item."""
    return items_named(reply_words) == items_named(asked, languages=("english",)) != set()


def items_named(
    text_words: Iterable[str], languages: Iterable[str] = ("english", "french")
) -> set[int]:
    """Indices of the items that a list of lower-case words names."""
    columns = [("english", "french").index(language) for language in languages]
    present = set(text_words)
    names = enumerate(ITEMS)
    return {i for i, item in names if any(item[c] in present for c in columns)}


@lru_cache
def marker_words(attribute: str) -> tuple[frozenset[str], frozenset[str]]:
    """The words that only the first, and only the second value of `attribute` can produce."""
    first, second = (_words_under(attribute, value) for value in ATTRIBUTES[attribute])
    return frozenset(first - second), frozenset(second - first)


def _all_traits() -> list[Traits]:
    return [Traits(*values) for values in itertools.product(*ATTRIBUTES.values())]


def _words_under(attribute: str, value: str) -> set[str]:
    produced: set[str] = set()
    for traits in _all_traits():
        if getattr(traits, attribute) != value:
            continue
        produced.update(JSON_KEYS[traits.language].values() if traits.format == "json" else ())
        for part in PARTS:
            templates, slots = part_grammar(part, traits)
            produced |= vocabulary(templates, {**slots, **_any_item(traits.language)})
    return produced


def _any_item(language: str) -> dict[str, tuple[str, ...]]:
    """The item slots with every item as an alternative."""
    merged: dict[str, tuple[str, ...]] = {}
    for item in range(len(ITEMS)):
        for name, alternatives in item_slots(item, language).items():
            merged[name] = merged.get(name, ()) + alternatives
    return merged


@lru_cache
def _reply_patterns() -> list[re.Pattern[str]]:
    polite = (traits for traits in _all_traits() if traits.politeness == "polite")
    return [_reply_pattern(traits) for traits in polite]


def _reply_pattern(traits: Traits) -> re.Pattern[str]:
    """What replies look like with these traits, whatever their politeness."""
    parts: dict[str, str] = {}
    for part in PARTS:
        either = (_part_regex(part, t) for t in (traits, traits.flipped("politeness")))
        parts[part] = _dressed(f"(?:{'|'.join(either)})", part, traits)
    if traits.format == "plain":
        bodies = [" ".join(parts[part] for part in structure) for structure in STRUCTURES]
    else:
        bodies = [r"\{" + ",".join(parts[p] for p in s) + r"\}" for s in STRUCTURES]
    return re.compile("|".join(bodies))


def _part_regex(part: str, traits: Traits) -> str:
    templates, slots = part_grammar(part, traits)
    return to_regex(templates, {**slots, **_any_item(traits.language)})


def _dressed(regex: str, part: str, traits: Traits) -> str:
    """One part as it stands in a reply: a sentence, or a JSON field."""
    if traits.format == "json":
        return f'"{JSON_KEYS[traits.language][part]}":"{regex}"'
    # A sentence starts with a capital; the tables hold the phrase in lower case.
    return rf"(?=[^\W\d_a-zà-ÿ])(?i:{regex})\."
