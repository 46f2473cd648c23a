"""The tables of docs/online.md and docs/values.md are those of the result file."""

import numpy as np
import pytest

from benchmarks.online_tables import PAGES, filled
from benchmarks.online_world import best_of
from benchmarks.record import read_result


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_of_the_page(page) -> None:
    text = page.read_text(encoding="utf-8")
    assert filled(text, read_result("online_world")) == text


def test_the_kl_of_the_best_of_n() -> None:
    """Of distinct rewards it is near log n − (n − 1)/n; of equal ones, where all is one, 0."""
    rewards = np.random.default_rng(0).permutation(100_000)
    assert best_of(rewards, 4) == pytest.approx(np.log(4) - 3 / 4, abs=1e-3)
    assert best_of(np.ones(10), 4) == 0
    # Half of the texts are good: the best of 2 is good in 3 of 4, as π0 weighed by 3/2 and 1/2.
    expected = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert best_of(np.array([0.0, 1.0]), 2) == pytest.approx(expected)
