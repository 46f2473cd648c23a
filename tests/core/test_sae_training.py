"""Training autoencoders: rows, buffer, recipe, folding, without a framework's model."""

import numpy as np
import pytest

from fpo_core.arrays import numpy_ops
from fpo_core.config import SaeTrainConfig
from fpo_core.errors import ConfigError
from fpo_core.sae.metadata import SaeMeta
from fpo_core.sae_training.folding import folded
from fpo_core.sae_training.learner import Scaling, initial
from fpo_core.sae_training.recipe import Recipe, recipe_of
from fpo_core.sae_training.rows import forward_batches
from fpo_core.sae_training.shuffle_buffer import ShuffleBuffer

SETTINGS = {"model": "m", "data": "d", "output": "o.safetensors"}


def recipe(**changes):
    plain = {"d_in": 6, "d_sae": 40, "k": 3, "tokens": 1000, "batch_tokens": 50, "seed": 0}
    plain |= {"learning_rate": 1e-3, "architecture": "batchtopk", "prefixes": (40,)}
    return Recipe(**(plain | changes))


def read_tokens(batches):
    return sorted(
        (row[: column + 1].tolist())
        for batch in batches
        for row, reads in zip(batch.tokens, batch.read, strict=True)
        for column in np.flatnonzero(reads)
    )


def test_a_context_is_read_once_and_special_tokens_never():
    rows = [[1, 5, 6, 7], [1, 5, 6, 8, 9], [1, 5, 6, 7]]
    found = read_tokens(forward_batches(rows, [1], 100))
    assert found == [[1, 5], [1, 5, 6], [1, 5, 6, 7], [1, 5, 6, 8], [1, 5, 6, 8, 9]]


def test_forward_batches_keep_to_their_budget():
    rows = [[i, *range(100, 100 + i)] for i in range(1, 40)]
    batches = forward_batches(rows, [], 64)
    assert all(batch.tokens.size <= 64 or len(batch.tokens) == 1 for batch in batches)
    assert sum(batch.count for batch in batches) == sum(map(len, rows))


def buffer(sizes, capacity, **options):
    values = np.random.default_rng(0).normal(size=(sum(sizes), 4)).astype(np.float32) + 8
    starts = np.cumsum([0, *sizes])
    asked = []

    def read(numbers):
        asked.extend(numbers)
        return [[values[starts[n] : starts[n + 1]]] for n in numbers]

    made = ShuffleBuffer(sizes, read, [4], capacity=capacity, seed=3, **options)
    return made, asked


SIZES = [7, 20, 13, 5, 30, 11, 9, 16, 21, 8]


def test_what_fits_is_read_once_and_served_in_new_orders():
    made, asked = buffer(SIZES, 1000)
    first = made.batch(140)[0]
    second = made.batch(140)[0]
    assert sorted(asked) == list(range(len(SIZES)))
    assert made.size == 140
    np.testing.assert_array_equal(np.sort(first, 0), np.sort(second, 0))
    assert not np.array_equal(first, second)


def test_a_small_buffer_stays_small_and_serves_every_token_equally():
    made, asked = buffer(SIZES, 70)
    assert made.size == 70
    rows = np.concatenate([made.batch(10)[0] for _ in range(140)])
    seen = np.unique(rows, axis=0, return_counts=True)[1]
    assert len(seen) == 140
    assert 4 <= seen.min() <= seen.max() <= 16
    assert len(set(asked)) == len(SIZES)


@pytest.mark.parametrize("capacity", [70, 1000])
def test_two_blocks_at_once_give_the_same_batches(capacity):
    one, two = (buffer(SIZES, capacity, at_once=n)[0] for n in (1, 2))
    for _ in range(40):
        np.testing.assert_array_equal(one.batch(10)[0], two.batch(10)[0])


@pytest.mark.parametrize("capacity", [70, 1000])
def test_it_goes_on_from_its_contents_and_numbers(capacity):
    whole, _ = buffer(SIZES, capacity)
    for _ in range(11):
        whole.batch(10)
    again, _ = buffer(SIZES, capacity)
    centres = [scaling.centre for scaling in whole.scalings]
    again.restore(whole.numbers(), whole.arrays, whole.order, centres)
    for _ in range(40):
        np.testing.assert_array_equal(whole.batch(10)[0], again.batch(10)[0])


def test_outliers_are_never_served():
    def read(numbers):
        rows = np.ones((20, 4), np.float32)
        rows[::5] = 50.0
        return [[rows] for _ in numbers]

    made = ShuffleBuffer([20, 20], read, [4], capacity=100, seed=0)
    made.fill()
    assert len(made.order) == 32
    assert made.batch(32)[0].max() == 1.0


def test_folding_changes_no_pre_activation_and_unscales_the_reconstruction():
    rng = np.random.default_rng(5)
    made, scaling = recipe(), Scaling(rng.normal(size=6).astype(np.float32), 1.7, 1e9)
    parameters = initial(made) | {
        "b_enc": rng.normal(size=40).astype(np.float32),
        "b_dec": rng.normal(size=6).astype(np.float32),
    }
    meta = SaeMeta(architecture="jumprelu", d_in=6, d_sae=40)
    sae = folded(parameters, scaling, made, meta, 0.5)
    x = rng.normal(size=(9, 6)).astype(np.float32)
    z = (x - scaling.centre) * scaling.factor
    pre = z @ parameters["W_enc"].T + parameters["b_enc"]
    codes = np.maximum(pre, 0) * (pre > 0.5)
    np.testing.assert_allclose(sae.encode(numpy_ops, x), codes, rtol=1e-4, atol=1e-5)
    z_back = codes @ parameters["W_dec"] + parameters["b_dec"]
    expected = z_back / scaling.factor + scaling.centre
    np.testing.assert_allclose(sae.reconstruct(numpy_ops, x), expected, rtol=1e-4, atol=1e-5)


def test_the_rate_rises_stays_and_falls_to_nothing():
    made = recipe(tokens=50 * 100)
    rates = [made.rate(step) for step in range(1, 101)]
    assert rates[0] < rates[2] < rates[10] == max(rates) == made.learning_rate
    assert rates[-1] < 0.05 * made.learning_rate


@pytest.mark.parametrize(
    ("d_in", "distinct", "expected"),
    [(576, 10**6, (4096, 32)), (576, 20_000, (512, 32)), (2304, 10**8, (16384, 64))],
)
def test_defaults_follow_the_width_and_the_tokens_at_hand(d_in, distinct, expected):
    made = recipe_of(SaeTrainConfig(**SETTINGS), d_in, distinct)
    assert (made.d_sae, made.k) == expected


def test_short_runs_learn_faster_up_to_twice():
    few, some, many = (
        recipe_of(SaeTrainConfig(**SETTINGS, tokens=2048 * steps), 576, 10**6).learning_rate
        for steps in (50, 500, 2000)
    )
    assert many == pytest.approx(0.128 / 24)
    assert few == pytest.approx(2 * many)
    assert many < some < few


def test_nested_widths_end_at_d_sae():
    made = recipe_of(SaeTrainConfig(**SETTINGS, d_sae=4096, matryoshka=5), 576, 10**6)
    assert made.prefixes == (16, 64, 256, 1024, 4096)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"k": 50, "d_sae": 40}, "k is 50 and d_sae 40"),
        ({"matryoshka": 9, "d_sae": 40}, "matryoshka is 9"),
    ],
)
def test_contradictions_are_refused(changes, reason):
    with pytest.raises(ConfigError, match=reason):
        recipe_of(SaeTrainConfig(**SETTINGS, **changes), 6, 10**6)
