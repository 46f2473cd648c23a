"""Win rates against their definitions and against planted effects."""

import numpy as np
import pytest

from fpo_core.judges.win_rate import win_rate


def prompts(n: int) -> list[str]:
    return [f"prompt {i}" for i in range(n)]


def answers(n: int, generator: np.random.Generator, longer: float = 150.0) -> list[tuple[int, int]]:
    """Lengths of both answers, the first ones longer on the average."""
    a, b = generator.normal(400 + longer, 120, n), generator.normal(400, 120, n)
    return [(int(x), int(y)) for x, y in zip(a, b, strict=True)]


def test_the_rate_is_the_mean_and_no_verdict_counts_nowhere() -> None:
    result = win_rate(prompts(5), [1.0, 0.5, np.nan, 0.0, 0.75], [(1, 1)] * 5)
    assert result.rate is not None
    assert result.rate.value == pytest.approx((1 + 0.5 + 0 + 0.75) / 4)
    assert (result.pairs, result.no_verdict) == (5, 1)
    nothing = win_rate(prompts(2), [np.nan] * 2, [(1, 2)] * 2)
    assert (nothing.rate, nothing.controlled, nothing.no_verdict) == (None, None, 2)


def test_a_judge_of_length_alone_wins_nothing_at_equal_length() -> None:
    """Equal quality, the longer answer preferred: far up as it stands, 0.5 once controlled."""
    controlled = []
    for seed in range(10):
        sizes = answers(300, np.random.default_rng(seed), 200.0)
        result = win_rate(prompts(300), [float(a > b) for a, b in sizes], sizes)
        assert result.rate is not None
        assert result.controlled is not None
        assert result.rate.value > 0.8
        controlled.append(result.controlled)
    assert sum(rate.low < 0.5 < rate.high for rate in controlled) >= 8
    assert np.mean([rate.value for rate in controlled]) == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize("quality", [0.5, 0.65])
def test_a_planted_effect_is_recovered_under_a_bias_for_length(quality: float) -> None:
    """q = σ(logit quality + 1.5 tanh(Δ/s)): the controlled rate is the planted quality."""
    generator = np.random.default_rng(1)
    sizes = answers(3000, generator)
    difference = np.array([a - b for a, b in sizes], float)
    logit = np.log(quality / (1 - quality)) + 1.5 * np.tanh(difference / difference.std())
    won = (generator.random(3000) < 1 / (1 + np.exp(-logit))).astype(float)
    result = win_rate(prompts(3000), won.tolist(), sizes)
    assert result.rate is not None
    assert result.controlled is not None
    assert result.rate.value > quality + 0.1
    assert result.controlled.low < quality < result.controlled.high
    assert result.controlled.high - result.controlled.low < 0.1


def test_intervals_cover() -> None:
    """Of 200 noisy judges with p = 0.7, about 95% have an interval around 0.7."""
    generator = np.random.default_rng(2)
    names, covered = prompts(60), 0
    for draw in range(200):
        won = (generator.random(60) < 0.7).astype(float).tolist()
        rate = win_rate(names, won, [(1, 1)] * 60, draw).rate
        assert rate is not None
        covered += rate.low <= 0.7 <= rate.high
    assert 0.91 <= covered / 200 <= 0.99


def test_samples_of_one_prompt_are_no_independent_witnesses() -> None:
    """Eight equal verdicts a prompt: the interval is that of the prompts, not of the pairs."""
    won = (np.random.default_rng(3).random(50) < 0.5).astype(float)
    few = win_rate(prompts(50), won.tolist(), [(1, 1)] * 50).rate
    names = [name for name in prompts(50) for _ in range(8)]
    many = win_rate(names, np.repeat(won, 8).tolist(), [(1, 1)] * 400).rate
    assert few is not None
    assert many is not None
    assert many.high - many.low == pytest.approx(few.high - few.low, rel=0.1)
