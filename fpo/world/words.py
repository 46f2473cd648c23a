"""The words of the quickstart world: items, prompts, and reply phrases in English and French.

French adjectives are all the same in both genders, and French items all begin with a consonant, so
that no agreement or elision is needed.
"""

# (English name, French name, French gender)
ITEMS: tuple[tuple[str, str, str], ...] = (
    ("kettle", "bouilloire", "f"), ("lamp", "lampe", "f"), ("chair", "chaise", "f"),
    ("bicycle", "vélo", "m"), ("clock", "pendule", "f"), ("backpack", "sac", "m"),
    ("tent", "tente", "f"), ("blanket", "couverture", "f"), ("mirror", "miroir", "m"),
    ("cushion", "coussin", "m"), ("carpet", "tapis", "m"), ("keyboard", "clavier", "m"),
    ("guitar", "guitare", "f"), ("drum", "tambour", "m"), ("drill", "perceuse", "f"),
    ("hammer", "marteau", "m"), ("knife", "couteau", "m"), ("fridge", "frigo", "m"),
    ("fan", "ventilateur", "m"), ("desk", "bureau", "m"), ("sofa", "canapé", "m"),
    ("watch", "montre", "f"), ("jacket", "veste", "f"), ("boot", "botte", "f"),
    ("scarf", "foulard", "m"), ("hat", "chapeau", "m"), ("suitcase", "valise", "f"),
    ("bottle", "bouteille", "f"), ("bowl", "bol", "m"), ("basket", "panier", "m"),
    ("candle", "bougie", "f"), ("doll", "poupée", "f"), ("pencil", "crayon", "m"),
    ("notebook", "cahier", "m"), ("ring", "bague", "f"), ("necklace", "collier", "m"),
)  # fmt: skip

PROMPTS: tuple[str, ...] = (
    "{name} asks about the {kind} {item} for the {room}.",
    "What do you think of the {kind} {item}? It is for my {relation}.",
    "My {relation} wants the {kind} {item} for the {room}. Any opinion?",
    "Tell me about the {kind} {item} that {name} saw {when}.",
    "Is the {kind} {item} a fair choice for my {relation}?",
    "I saw the {kind} {item} {when}. Should {name} order one?",
)

PROMPT_SLOTS: dict[str, tuple[str, ...]] = {
    "name": ("Alice", "Omar", "Lena", "Hugo", "Mina", "Paul", "Sara", "Igor", "Ruth", "Yuki"),
    "kind": ("red", "blue", "green", "black", "white", "small", "large", "old", "new", "cheap"),
    "room": ("kitchen", "garden", "office", "bedroom", "school", "cabin", "studio", "hall"),
    "relation": ("sister", "brother", "mother", "father", "aunt", "uncle", "cousin", "neighbour"),
    "when": ("yesterday", "today", "on Monday", "on Friday", "last week", "last month"),
}

# What a reply says of the item, the same patterns for both sentiments.
VIEWS: dict[str, tuple[str, ...]] = {
    "english": (
        "the {item} is {very} {adj} and {adj}",
        "people find the {item} {very} {adj} and {adj}",
        "the {aspect} of the {item} {seems} {very} {adj}",
        "with the {item} the {aspect} {seems} {adj}",
        "after a {while} the {item} {seems} {very} {adj}",
        "the {item} {does} and the {aspect} {seems} {adj}",
    ),
    "french": (
        "{the_item} est {very} {adj} et {adj}",
        "on trouve {the_item} {very} {adj} et {adj}",
        "{the_aspect} {of_item} {seems} {very} {adj}",
        "avec {the_item} {the_aspect} {seems} {adj}",
        "après {while} {the_item} {seems} {very} {adj}",
        "{the_item} {does} et {the_aspect} {seems} {adj}",
    ),
}

VIEW_SLOTS: dict[str, dict[str, tuple[str, ...]]] = {
    "english": {
        "very": ("very", "really", "quite", "truly", "rather", "always"),
        "seems": ("is", "looks", "feels", "seems", "remains"),
        "while": ("day", "week", "month", "year"),
        "aspect": ("handle", "cover", "shape", "design", "material", "finish", "surface", "style"),
    },
    "french": {
        "very": ("très", "vraiment", "assez", "plutôt", "toujours", "souvent"),
        "seems": ("est", "paraît", "semble", "reste", "demeure"),
        "while": ("un jour", "une semaine", "un mois", "un an"),
        "the_aspect": (
            "la poignée", "la couleur", "la forme", "la matière", "la finition", "la surface",
            "le style", "le dessin",
        ),
    },
}  # fmt: skip

# Slots and advice that carry the sentiment, by (language, sentiment).
SENTIMENT_SLOTS: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {
    ("english", "positive"): {
        "adj": (
            "sturdy", "reliable", "comfortable", "elegant", "excellent", "practical", "charming",
            "superb", "solid", "handy", "neat", "pleasant",
        ),
        "does": ("works every day", "lasts for years", "saves much effort", "never fails"),
    },
    ("english", "negative"): {
        "adj": (
            "flimsy", "unreliable", "uncomfortable", "ugly", "awful", "useless", "dull", "fragile",
            "noisy", "clumsy", "shabby", "weak",
        ),
        "does": ("breaks every day", "leaks for hours", "costs much effort", "always fails"),
    },
    ("french", "positive"): {
        "adj": (
            "solide", "fiable", "confortable", "superbe", "pratique", "utile", "facile", "moderne",
            "agréable", "stable", "magnifique", "robuste",
        ),
        "does": ("marche chaque jour", "dure des années", "aide beaucoup", "tient bon"),
    },
    ("french", "negative"): {
        "adj": (
            "fragile", "médiocre", "instable", "pénible", "ridicule", "inutile", "terne", "moche",
            "faible", "minable", "fade", "détestable",
        ),
        "does": ("casse chaque jour", "fuit des heures", "gêne beaucoup", "tombe souvent"),
    },
}  # fmt: skip

ADVICE: dict[tuple[str, str], tuple[str, ...]] = {
    ("english", "positive"): (
        "{who} should buy it", "I would {gladly} recommend it", "it deserves {many} stars",
    ),
    ("english", "negative"): (
        "{who} should avoid it", "I would {gladly} return it", "it deserves {many} complaints",
    ),
    ("french", "positive"): (
        "{who} devrait acheter cela", "{gladly}, je le recommande", "cela mérite {many} étoiles",
    ),
    ("french", "negative"): (
        "{who} devrait éviter cela", "{gladly}, je le déconseille", "cela mérite {many} plaintes",
    ),
}  # fmt: skip

ADVICE_SLOTS: dict[str, dict[str, tuple[str, ...]]] = {
    "english": {
        "who": ("everyone", "a family", "a student", "a traveller"),
        "gladly": ("surely", "simply", "certainly", "probably"),
        "many": ("many", "five", "several", "our"),
    },
    "french": {
        "who": ("chacun", "une famille", "un étudiant", "un voyageur"),
        "gladly": ("certes", "bref", "oui", "alors"),
        "many": ("plusieurs", "cinq", "quelques", "nos"),
    },
}
