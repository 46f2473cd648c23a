"""Ranking features between texts, and the file of their weights."""

import json

import numpy as np
import pytest

from fpo_core.errors import SaeError
from fpo_core.evaluation.feature_ranking import contrast
from fpo_core.sae.feature_weights import read_weights, write_weights
from tests.helpers import random_sae

POSITIVE = np.array([[1.0, 0, 5, 0, 3], [3, 0, 5, 0, 3]])
NEGATIVE = np.array([[0.0, 4, 5, 0, 1], [0, 4, 5, 0, 1]])


def test_features_rank_by_difference_of_means():
    found = contrast(POSITIVE, NEGATIVE, 10)
    assert [(f.index, f.positive, f.negative, f.difference) for f in found] == [
        (0, 2.0, 0.0, 2.0),
        (4, 3.0, 1.0, 2.0),
    ]
    # Feature 0 varies by 1 on the positive side alone: 2 / √(1/2).
    assert found[0].effect == pytest.approx(2 / np.sqrt(0.5))
    assert found[1].effect == float("inf")
    assert len(contrast(POSITIVE, NEGATIVE, 1)) == 1


def test_either_direction_ranks_by_size():
    found = contrast(POSITIVE, NEGATIVE, 10, absolute=True)
    assert [f.index for f in found] == [1, 0, 4]
    assert found[0].difference == -4
    assert found[0].effect == float("-inf")


@pytest.fixture
def sae():
    import dataclasses

    return dataclasses.replace(random_sae(4, 6), payload_sha256="a" * 64)


def test_weights_survive_their_file(tmp_path, sae):
    file = tmp_path / "w.json"
    write_weights(file, sae, {5: 0.5, 0: 2.0}, positive="polite.txt")
    np.testing.assert_array_equal(read_weights(file, sae), [2.0, 0, 0, 0, 0, 0.5])
    assert json.loads(file.read_text())["positive"] == "polite.txt"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sae": "b" * 64}, "belong to another autoencoder"),
        ({"weights": {"6": 1.0}}, "an index below 6"),
        ({"weights": {"1": -1.0}}, "a weight above 0"),
        ({"weights": {"1": float("nan")}}, "a weight above 0"),
        ({"weights": {}}, "lists no feature"),
        ({"weights": [1]}, "is not a feature-weights file"),
        ({"weights": {"one": 1}}, "is not a feature-weights file"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, sae, change, said):
    file = tmp_path / "w.json"
    write_weights(file, sae, {1: 1.0})
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(SaeError, match=said):
        read_weights(file, sae)


def test_an_absent_or_broken_file_is_refused(tmp_path, sae):
    with pytest.raises(SaeError, match="cannot be read"):
        read_weights(tmp_path / "none.json", sae)
    (tmp_path / "bad.json").write_text("[")
    with pytest.raises(SaeError, match="is not a feature-weights file"):
        read_weights(tmp_path / "bad.json", sae)
