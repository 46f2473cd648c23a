"""A tiny phrase grammar: templates with {slots}, expanded at random or compiled to a regex.

One table of templates serves both directions: the generator draws from it and the oracle matches
against it, so the two cannot disagree about what is well formed.
"""

import random
import re
from collections.abc import Mapping, Sequence

Slots = Mapping[str, Sequence[str]]
_SLOT = re.compile(r"\{(\w+)\}")


def pick(rng: random.Random, choices: Sequence[str]) -> str:
    """One of `choices`, by `rng.random()` alone: its sequence is the same on every Python."""
    return choices[int(rng.random() * len(choices))]


def expand(rng: random.Random, template: str, slots: Slots) -> str:
    """Fill every slot of `template` with a random alternative, recursively."""
    return _SLOT.sub(lambda m: expand(rng, pick(rng, slots[m[1]]), slots), template)


def to_regex(templates: Sequence[str], slots: Slots) -> str:
    """A regular expression that matches exactly what `templates` can expand to."""
    return "(?:" + "|".join(_one_regex(t, slots) for t in templates) + ")"


def _one_regex(template: str, slots: Slots) -> str:
    parts = _SLOT.split(template)  # literals at even places, slot names at odd ones
    return "".join(
        to_regex(slots[p], slots) if i % 2 else re.escape(p) for i, p in enumerate(parts)
    )


def words(text: str) -> list[str]:
    """The words of `text` in lower case; punctuation and digits are left out."""
    return re.findall(r"[^\W\d_]+", text.lower())


def vocabulary(templates: Sequence[str], slots: Slots) -> set[str]:
    """Every word that `templates` can expand to."""
    produced: set[str] = set()
    for template in templates:
        produced.update(words(_SLOT.sub(" ", template)))
        for name in _SLOT.findall(template):
            produced |= vocabulary(slots[name], slots)
    return produced


def sentence(phrase: str) -> str:
    """The phrase with a capital first letter and a full stop."""
    return phrase[0].upper() + phrase[1:] + "."
