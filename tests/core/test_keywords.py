"""RAKE by hand, and texts that lose growing shares of their key phrases."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fpo.world import assets
from fpo.world.oracle import marker_words
from fpo.world.template import words
from fpo_core.pairs.keywords import key_phrases, without_keywords, without_random_words

TEXT = "The deep sea fish and fish."


def phrases(text):
    return [" ".join(word[1] for word in phrase) for phrase in key_phrases(text)]


def test_scores_by_hand():
    """fish stands twice, in phrases of 3 and 1 words: 4/2; deep and sea score 3/1. 8 against 2."""
    assert phrases(TEXT) == ["deep sea fish", "fish"]
    assert phrases("fish, and deep sea fish") == ["deep sea fish", "fish"]
    assert phrases("of the fish, of the sea") == ["fish", "sea"], "equal ones in order"
    assert phrases("fish. fish. fish. fish. fish. deep sea")[0] == "deep sea", "5/5 against 2 + 2"
    assert phrases("L'hôtel n'est pas loin d'ici") == ["hôtel", "loin", "ici"]
    assert phrases("and of the") == phrases("") == []


def test_a_share_of_the_phrases_is_removed_rounded_up():
    assert without_keywords(TEXT, 0) == TEXT
    assert without_keywords(TEXT, 0.25) == without_keywords(TEXT, 0.5) == "The and fish."
    assert without_keywords(TEXT, 0.75) == "The and."


def test_random_words_are_as_many():
    """Three of six; the words of the least draws."""
    assert without_random_words(TEXT, 0.25, range) == " fish and fish."
    assert without_random_words(TEXT, 0.25, lambda n: range(n, 0, -1)) == "The deep sea."
    assert without_random_words(TEXT, 0, range) == TEXT


@given(st.text(alphabet="abthe nor.,'é\n", max_size=60))
def test_more_is_removed_at_each_level(text):
    left = [without_keywords(text, level / 4) for level in range(5)]
    counts = [len(text.replace(" ", "").replace("\n", "")) for text in left]
    assert counts == sorted(counts, reverse=True)
    assert left[0] == text
    assert phrases(left[4]) == []


def test_levels_are_degrees_of_what_the_world_prefers():
    """Words of politeness get fewer with the level: without that a head would learn nothing."""
    marked = frozenset().union(*marker_words("politeness"))
    lines = assets().valid.read_text(encoding="utf-8").splitlines()[:40]
    replies = [json.loads(line)["chosen"][0]["content"] for line in lines]
    counts = [
        np.mean([sum(w in marked for w in words(without_keywords(r, j / 4))) for r in replies])
        for j in range(4)
    ]
    assert (np.diff(counts) < 0).all()
