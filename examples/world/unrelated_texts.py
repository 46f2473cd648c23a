"""Text that has nothing to do with the shop: facts, sums, small stories, in English and French.

The model is also trained on it, and held-out lines of it show what preference training breaks.
"""

import random

from fpo.world.template import expand, pick, sentence

NUMBERS: dict[str, tuple[str, ...]] = {
    "english": (
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
        "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen",
    ),
    "french": (
        "zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix",
        "onze", "douze", "treize", "quatorze", "quinze", "seize",
    ),
}  # fmt: skip

# (animal, where it lives, what it eats): fixed, so that a model can know them.
FACTS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "english": (
        ("owl", "forest", "mice"), ("whale", "ocean", "plankton"), ("camel", "desert", "thorns"),
        ("frog", "pond", "flies"), ("goat", "mountain", "grass"), ("bear", "valley", "honey"),
        ("crab", "beach", "shells"), ("horse", "meadow", "oats"),
    ),
    "french": (
        ("le hibou", "la forêt", "des souris"), ("la baleine", "la mer", "du plancton"),
        ("le chameau", "le désert", "des épines"), ("la grenouille", "la mare", "des mouches"),
        ("la chèvre", "la montagne", "du foin"), ("le crabe", "la plage", "des algues"),
    ),
}  # fmt: skip

_TIMES = ("In the spring", "At night", "In winter", "Before lunch", "At dawn", "On Sunday")
STORY = "{when} {name} walked to the {place}. A {animal} {moved} near the {thing}."
STORY_SLOTS: dict[str, tuple[str, ...]] = {
    "when": _TIMES,
    "name": ("Alice", "Omar", "Lena", "Hugo", "Mina", "Paul", "Sara", "Igor", "Ruth", "Yuki"),
    "place": ("river", "market", "castle", "harbour", "village", "bridge", "station", "tower"),
    "animal": ("fox", "dog", "cat", "bird", "rabbit", "goose", "pony", "snake"),
    "moved": ("slept", "waited", "jumped", "danced", "hid", "sang", "played", "rested"),
    "thing": ("tree", "well", "gate", "stone", "boat", "fire", "fence", "wagon"),
}
FRENCH_STORY = "{when}, {name} va vers {place}. {animal} {moves} près {thing}."
FRENCH_STORY_SLOTS: dict[str, tuple[str, ...]] = {
    "when": ("Au printemps", "En hiver", "Le matin", "Le soir", "Le dimanche", "En automne"),
    "name": STORY_SLOTS["name"],
    "place": ("la rivière", "le marché", "le château", "le port", "le village", "la gare"),
    "animal": ("Un renard", "Un chien", "Un chat", "Un lapin", "Une oie", "Un poney"),
    "moves": ("dort", "attend", "saute", "danse", "chante", "joue"),
    "thing": ("du puits", "du bateau", "du feu", "de la porte", "de la grange", "du moulin"),
}


def _sum(rng: random.Random) -> str:
    language = pick(rng, ("english", "french"))
    a, b = int(rng.random() * 9), int(rng.random() * 8)
    numbers, plus, equals = NUMBERS[language], "plus", {"english": "is", "french": "font"}[language]
    return sentence(f"{numbers[a]} {plus} {numbers[b]} {equals} {numbers[a + b]}")


def _fact(rng: random.Random) -> str:
    language = pick(rng, ("english", "french"))
    animal, home, food = FACTS[language][int(rng.random() * len(FACTS[language]))]
    if language == "english":
        return sentence(f"the {animal} lives in the {home} and eats {food}")
    return sentence(f"{animal} vit dans {home} et mange {food}")


def _story(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return expand(rng, STORY, STORY_SLOTS)
    return expand(rng, FRENCH_STORY, FRENCH_STORY_SLOTS)


def make_unrelated(rng: random.Random) -> str:
    """One short text: a story and two sentences that are each a fact or a sum."""
    parts = [_story(rng)] + [(_sum if rng.random() < 0.5 else _fact)(rng) for _ in range(2)]
    if rng.random() < 0.5:
        parts.reverse()
    return " ".join(parts)
