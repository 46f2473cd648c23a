"""Diversity of samples."""

import json
import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

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


def test_json_lines_end_at_line_feeds_alone(tmp_path):
    texts = ["one\u2028two", "three\x85four"]
    lines = (json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    (tmp_path / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert read_texts(tmp_path / "texts.jsonl") == texts


def test_a_perplexity_beyond_numbers_is_infinite():
    class Policy:
        def score(self, batch):
            lengths = (batch.lengths - 1).astype(float)
            return Scores(logps=-800.0 * lengths, lengths=lengths)

    tokenizer = lambda text: SimpleNamespace(input_ids=[1, 2, 3])  # noqa: E731
    assert perplexity(cast("Any", Policy()), tokenizer, ["text"], 64, 64) == math.inf
