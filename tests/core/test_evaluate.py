"""Diversity of samples, and files of texts."""

import json
import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from fpo_core.errors import DataError
from fpo_core.evaluation.evaluate import distinct
from fpo_core.evaluation.texts import perplexity, read_texts
from fpo_core.loss.scores import Scores


@pytest.mark.parametrize(
    ("n", "expected"),
    # Tokens 1 2 1 2 and 1 3: three of six distinct; pairs 12 21 12 13: three of four.
    [(1, 3 / 6), (2, 3 / 4), (4, 1.0), (5, None)],
)
def test_distinct_n_by_hand(n, expected):
    assert distinct([np.array([1, 2, 1, 2]), np.array([1, 3])], n) == expected


def test_a_perplexity_beyond_numbers_is_infinite():
    class Policy:
        def score(self, batch):
            lengths = (batch.lengths - 1).astype(float)
            return Scores(logps=-800.0 * lengths, lengths=lengths)

    tokenizer = lambda text: SimpleNamespace(input_ids=[1, 2, 3])  # noqa: E731
    assert perplexity(cast("Any", Policy()), tokenizer, ["text"], 64, 64) == math.inf


def test_texts_of_a_file_are_whole_and_without_its_mark(tmp_path):
    texts = ["one", "two\u2028lines"]
    rows = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\r\n" for text in texts)
    (tmp_path / "a.jsonl").write_text("\ufeff" + rows, encoding="utf-8")
    assert read_texts(tmp_path / "a.jsonl") == texts
    (tmp_path / "a.txt").write_text("\ufeffone\r\n\ntwo\n", encoding="utf-8")
    assert read_texts(tmp_path / "a.txt") == ["one", "two"]


def test_half_a_surrogate_pair_is_named_by_its_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "\\ud800"}\n')
    with pytest.raises(DataError, match=r"line 2: the text is not valid Unicode"):
        read_texts(tmp_path / "a.jsonl")


@pytest.mark.parametrize("row", ['{"text": null}', '{"text": 5}', "[]", '"text"'])
def test_a_row_without_a_text_is_named_by_its_line(tmp_path, row):
    """None and numbers were texts, of their names; empty lines were not counted."""
    (tmp_path / "a.jsonl").write_text(f'{{"text": "one"}}\n\n{row}\n')
    with pytest.raises(DataError, match="line 3 is not an object like"):
        read_texts(tmp_path / "a.jsonl")
