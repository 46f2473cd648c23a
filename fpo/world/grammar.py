"""The grammar of the quickstart world: prompts, replies with four attributes, and their regexes.

A prompt asks a shop about an item. A reply to it has four attributes, independent of the prompt
and of each other: politeness, sentiment, language, format. Everything is drawn from a
`random.Random`, so a seed fixes every text.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from fpo.world import phrases, words
from fpo.world.template import expand, pick, sentence

# The second value of each attribute is the one that scores 1 in the oracle.
ATTRIBUTES: dict[str, tuple[str, str]] = {
    "politeness": ("rude", "polite"),
    "sentiment": ("negative", "positive"),
    "language": ("english", "french"),
    "format": ("plain", "json"),
}

# A reply is three parts in one of these orders; at least one part shows the politeness.
STRUCTURES: tuple[tuple[str, ...], ...] = (
    ("opening", "view", "closing"),
    ("opening", "view", "advice"),
    ("view", "advice", "closing"),
)

JSON_KEYS: dict[str, dict[str, str]] = {
    "english": {"opening": "hello", "view": "view", "advice": "advice", "closing": "bye"},
    "french": {"opening": "accueil", "view": "avis", "advice": "conseil", "closing": "fin"},
}


@dataclass(frozen=True)
class Traits:
    """The attributes of a reply; each field takes one of the two values in `ATTRIBUTES`."""

    politeness: str
    sentiment: str
    language: str
    format: str

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value not in ATTRIBUTES[name]:
                allowed = " or ".join(ATTRIBUTES[name])
                raise ValueError(f"{name} is {value!r}, expected {allowed}.")

    def flipped(self, attribute: str) -> "Traits":
        """The same traits with `attribute` set to its other value."""
        first, second = ATTRIBUTES[attribute]
        return replace(self, **{attribute: second if getattr(self, attribute) == first else first})


@dataclass(frozen=True)
class Prompt:
    """A customer's request, and the index in `words.ITEMS` of the item it is about."""

    text: str
    item: int


def random_traits(rng: random.Random, **fixed: str) -> Traits:
    """Traits drawn evenly and independently, except those given by name."""
    return Traits(**{name: fixed.get(name) or pick(rng, ATTRIBUTES[name]) for name in ATTRIBUTES})


def make_prompt(rng: random.Random) -> Prompt:
    """A random request about a random item."""
    item = int(rng.random() * len(words.ITEMS))
    slots = {**words.PROMPT_SLOTS, "item": (words.ITEMS[item][0],)}
    return Prompt(expand(rng, pick(rng, words.PROMPTS), slots), item)


def item_slots(item: int, language: str) -> dict[str, tuple[str, ...]]:
    """The slots that name the item, with its article in French."""
    english, french, gender = words.ITEMS[item]
    if language == "english":
        return {"item": (english,)}
    article, of = ("la", "de la") if gender == "f" else ("le", "du")
    return {"the_item": (f"{article} {french}",), "of_item": (f"{of} {french}",)}


def part_grammar(
    part: str, traits: Traits
) -> tuple[tuple[str, ...], Mapping[str, tuple[str, ...]]]:
    """The templates of one part of a reply and their slots, less those that name the item."""
    language = traits.language
    manner, mood = (language, traits.politeness), (language, traits.sentiment)
    if part == "view":
        slots = words.VIEW_SLOTS[language] | words.SENTIMENT_SLOTS[mood]
        return words.VIEWS[language], slots
    if part == "advice":
        return words.ADVICE[mood], words.ADVICE_SLOTS[language]
    table = phrases.OPENINGS if part == "opening" else phrases.CLOSINGS
    return table[manner], phrases.MANNER_SLOTS[manner]


def make_reply(rng: random.Random, item: int, traits: Traits) -> str:
    """A random reply about the item with exactly these traits."""
    return render(make_phrases(rng, item, traits), traits)


def make_phrases(rng: random.Random, item: int, traits: Traits) -> dict[str, str]:
    """The phrases of a random reply, by part, in the order of the reply."""
    structure = STRUCTURES[int(rng.random() * len(STRUCTURES))]
    return {part: _phrase(rng, part, item, traits) for part in structure}


def rewrite(
    rng: random.Random, item: int, phrases: Mapping[str, str], old: Traits, new: Traits
) -> dict[str, str]:
    """The same reply under other traits: parts that the change does not touch keep their words."""
    return {
        part: phrase
        if part_grammar(part, old) == part_grammar(part, new)
        else _phrase(rng, part, item, new)
        for part, phrase in phrases.items()
    }


def _phrase(rng: random.Random, part: str, item: int, traits: Traits) -> str:
    templates, slots = part_grammar(part, traits)
    return expand(rng, pick(rng, templates), {**slots, **item_slots(item, traits.language)})


def render(phrases: Mapping[str, str], traits: Traits) -> str:
    """The phrases as sentences, or as one compact JSON object."""
    if traits.format == "plain":
        return " ".join(sentence(phrase) for phrase in phrases.values())
    keys = JSON_KEYS[traits.language]
    fields = {keys[part]: phrase for part, phrase in phrases.items()}
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
