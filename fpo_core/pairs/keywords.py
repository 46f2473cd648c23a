"""Key phrases of a text by RAKE, and the text without a share of them.

Rose et al. 2010, "Automatic keyword extraction from individual documents": candidates are the runs
of words between stop words and punctuation; a word scores the mean length of the candidates that
hold it (its degree over its frequency), a phrase the sum of its words.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

Phrase = list[re.Match[str]]
"""The words of a phrase, where they stand in the text."""

_STOP_WORDS = {
    "en": "a about above after again against all also am an and any are as at be because been "
    "before being below between both but by can could did do does doing down during each few for "
    "from further had has have having he her here hers him his how i if in into is it its itself "
    "just let me more most my no nor not now of off on once only or other our out over own same "
    "she should so some such than that the their them then there these they this those through to "
    "too under until up us very was we were what when where which while who whom why will with "
    "would you your yours d don ll m re s t ve",
    "fr": "à ai ainsi alors après as au aucun aussi autre aux avant avec avez avoir avons c car ce "
    "ceci cela celle ces cet cette chez comme dans de depuis des donc dont du elle elles en encore "
    "entre es est et étaient était être eu eux fait il ils j je jusqu l la là le les leur leurs "
    "lui mais même mes moi mon n ne ni nos notre nous on ont ou où par parce pas pendant peu peut "
    "plus pour pourquoi qu quand que quel quelle qui s sa sans se sera ses si son sont sous suis "
    "sur ta te tes toi ton tous tout toute très tu un une va vers vos votre vous y",
}
_SEPARATING = frozenset(" ".join(_STOP_WORDS.values()).split())
_WORD = re.compile(r"(\w+)|[^\w\s]")


def key_phrases(text: str) -> list[Phrase]:
    """The key phrases of a text, English or French, by falling score; equal ones in its order."""
    phrases = _candidates(text)
    frequency, degree = Counter[str](), Counter[str]()
    for phrase in phrases:
        frequency.update(_lower(phrase))
        degree.update({word: n * len(phrase) for word, n in Counter(_lower(phrase)).items()})

    def score(phrase: Phrase) -> float:
        return sum(degree[word] / frequency[word] for word in _lower(phrase))

    return sorted(phrases, key=score, reverse=True)


def without_keywords(text: str, share: float) -> str:
    """The text less this share of its key phrases, rounded up, the highest scores first."""
    return _without(text, _removed(text, share))


def without_random_words(text: str, share: float, draws: Callable[[int], Sequence[int]]) -> str:
    """The text less as many words as `without_keywords` removes, those of the least `draws`.

    The control: what this teaches as well, key phrases have no part in.
    """
    words = [word for word in _WORD.finditer(text) if word[1]]
    order = sorted(zip(draws(len(words)), range(len(words)), strict=True))
    return _without(text, [words[i] for _, i in order[: len(_removed(text, share))]])


def _candidates(text: str) -> list[Phrase]:
    phrases: list[Phrase] = [[]]
    for word in _WORD.finditer(text):
        if word[1] and word[1].lower() not in _SEPARATING:
            phrases[-1].append(word)
        elif phrases[-1]:
            phrases.append([])
    return [phrase for phrase in phrases if phrase]


def _lower(phrase: Phrase) -> list[str]:
    return [word[1].lower() for word in phrase]


def _removed(text: str, share: float) -> Phrase:
    phrases = key_phrases(text)
    return [word for phrase in phrases[: math.ceil(share * len(phrases))] for word in phrase]


def _without(text: str, words: Iterable[re.Match[str]]) -> str:
    """The text less some words, and the white space before each."""
    parts, end = [], 0
    for word in sorted(words, key=re.Match.start):
        parts.append(text[end : word.start()].rstrip())
        end = word.end()
    return "".join([*parts, text[end:]])
