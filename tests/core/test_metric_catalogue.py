"""The catalogue of metrics: complete, without duplicates, and usable by whoever shows a number."""

import math
import typing
from pathlib import Path

import numpy as np
import pytest

from fpo_core.config import LoopConfig
from fpo_core.loss.metric_catalogue import METRICS, metric
from fpo_core.loss.metrics import preference_metrics
from tests.core.pretend import PretendPolicy, run
from tests.core.test_metrics import CONFIG, REFERENCE, SCORES


def test_every_metric_of_scores_has_a_row():
    assert set(preference_metrics(SCORES, REFERENCE, CONFIG)) <= set(METRICS)


def test_every_number_of_a_runs_log_has_a_row(tmp_path):
    _, events, _ = run(tmp_path, PretendPolicy())
    names = {name for e in events if e.kind in ("train", "eval") for name in e.values}
    assert {metric(name).name for name in names} == {n.removeprefix("eval_") for n in names}
    assert {"loss", "eval_loss", "tokens_per_second", "learning_rate"} <= names


def test_a_metric_that_picks_the_best_result_has_a_direction():
    choices = typing.get_args(typing.get_type_hints(LoopConfig)["best_metric"])
    assert [METRICS[name].direction for name in choices] == ["lower", "higher", "higher", "higher"]


@pytest.mark.parametrize("row", METRICS.values(), ids=list(METRICS))
def test_rows_are_whole(row):
    assert row.label
    assert row.short
    assert float(row.text(1234.5 * row.per_unit)) == pytest.approx(1234.5, rel=0.06)


def test_values_in_units_and_better_ones():
    assert metric("eval_loss").text(math.log(2)) == "0.6931"
    assert metric("peak_memory").text(3 * 2**20) == "3"
    assert metric("loss").improves(0.5, 0.6)
    assert metric("rewards/margins").improves(0.6, 0.5)
    assert not metric("rewards/margins").improves(0.5, 0.5)
    assert not metric("fpo/d_chosen").improves(np.inf, 0.0)


def test_the_documentation_lists_the_catalogue():
    text = (Path(__file__).parents[2] / "docs" / "reading-results.md").read_text(encoding="utf-8")
    rows = text.partition("## Every name")[2].strip().splitlines()[6:]
    assert rows == [
        f"| `{row.name}` | {row.label} | {row.unit or '–'} | {row.direction or '–'} |"
        for row in METRICS.values()
    ]


def test_an_unknown_metric_is_no_metric():
    with pytest.raises(KeyError):
        metric("eval_elegance")
