"""What docs/choosing.md tells of the related methods is what was measured."""

import numpy as np
import pytest

from benchmarks.record import read_result
from benchmarks.related.losses import graded_pairs
from benchmarks.related.report import BEGIN, DOCUMENT, END, tables
from benchmarks.related.runs import interval


def test_the_tables_are_those_of_the_results():
    shown = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert shown.strip() == tables(read_result("related"))


def test_what_is_said_of_degrees():
    measured = read_result("related")["parts"]["degrees"]
    first, *_, last = measured["markers"]["keywords"]
    said = " ".join(DOCUMENT.read_text(encoding="utf-8").split())
    assert f"from {first:.2f} a reply to {last:.2f} over the levels" in said
    assert f"(at random: to {measured['markers']['random'][-1]:.2f})" in said
    told, without = measured["keywords, γ 1"], measured["none"]
    assert 0.4 < told["degree_hit"]["low"] < told["degree_hit"]["high"] < 0.6
    control = measured["random, γ 1"]
    assert control["oracle"]["low"] <= told["oracle"]["mean"] <= control["oracle"]["high"]
    for name in ("oracle", "raw_accuracy"):
        assert told[name]["low"] <= without[name]["mean"] <= told[name]["high"], "nothing gained"


def test_the_interval_is_students():
    """Mean 2, standard deviation 1 of 1, 2, 3: ± 4.303 / √3."""
    found = interval([1.0, 2.0, 3.0])
    assert found["mean"] == 2
    assert found["high"] - 2 == pytest.approx(4.303 / 3**0.5)


def test_graded_pairs_are_clear_or_unclear():
    rows, gaps = zip(*graded_pairs(40, 0), strict=True)
    assert min(gaps) > 0
    assert max(gaps) == 1
    assert 0.2 < np.mean(np.array(gaps) < 0.9) < 0.8
    assert all(row["chosen"] != row["rejected"] for row in rows)
