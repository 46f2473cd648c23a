"""Validation takes about a tenth of a run, unless it is asked for."""

from pathlib import Path

import pytest

from fpo_core.train.validate import FEWEST, SHARE, ValidationPlan
from tests.core.pretend import config


@pytest.mark.parametrize(
    ("held_out", "steps", "batch", "every", "pairs", "times"),
    [
        # 152 pairs are trained, 3 passes each: a tenth of 456 is 45 pairs, 22 at start and end.
        (256, 38, 4, 38, 22, 2),
        # 40 000 × 3 / 10 = 12 000 pairs are enough for eleven times 256.
        (500, 10_000, 4, 1_000, 256, 11),
        # 4 000 × 3 / 10 = 1 200 are four times 256 and something: the start, and three times.
        (500, 1_000, 4, 334, 256, 4),
        (20, 10, 1, 10, FEWEST, 2),
        (3, 10, 1, 10, 3, 2),
        (0, 10, 1, 5, 0, 0),
    ],
)
def test_it_is_less_often_first_and_shorter_second(
    tmp_path: Path, held_out: int, steps: int, batch: int, every: int, pairs: int, times: int
) -> None:
    settings = config(tmp_path, batch_size=batch, iters=steps, val_pairs=256)
    plan = ValidationPlan.of(held_out, steps, settings)
    assert (plan.every, plan.pairs, plan.times) == (every, pairs, times)
    if pairs > FEWEST:
        assert plan.pairs * plan.times <= SHARE * 3 * steps * batch


def test_what_is_asked_for_is_done(tmp_path: Path) -> None:
    settings = config(tmp_path, steps_per_eval=2, val_pairs=256, iters=5)
    plan = ValidationPlan.of(1000, 5, settings)
    assert (plan.every, plan.pairs, plan.times) == (2, 256, 4)


def test_patience_keeps_its_ten_validations(tmp_path: Path) -> None:
    settings = config(tmp_path, batch_size=4, iters=100, val_pairs=256, early_stopping=2)
    plan = ValidationPlan.of(500, 100, settings)
    assert (plan.every, plan.pairs, plan.times) == (10, FEWEST, 11)
