"""SPO's degrees: the head's loss in float64, what is drawn for a step, and what is refused."""

import dataclasses

import numpy as np
import pytest

from fpo_core.config import ObjectiveConfig, TrainConfig
from fpo_core.data.batches import collate
from fpo_core.errors import ConfigError
from fpo_core.loss.degrees import with_degrees
from fpo_core.loss.metrics import losses_at_reference, pair_losses, preference_metrics
from fpo_core.loss.objectives import isolated, objective_losses
from fpo_core.loss.scores import Scores
from fpo_core.train.degrees import Degrader
from tests.backends.runs import WordTokenizer
from tests.helpers import FRAMEWORKS, framework, gradient, random_pairs

RNG = np.random.default_rng(0)
MEANS, HEAD = RNG.normal(size=(4, 5)), RNG.normal(size=(3, 5))
LEVELS = np.array([0, 2, 1, 2])
LOGPS, LENGTHS = RNG.normal(size=4) - 3, np.array([2.0, 3.0, 4.0, 5.0])


def shares():
    """softmax(W h̄), (4, 3)."""
    logits = MEANS @ HEAD.T
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def scored(fw, means=MEANS, head=HEAD):
    scores = Scores(fw.array(LOGPS), fw.array(LENGTHS))
    means, head = (fw.array(x) if isinstance(x, np.ndarray) else x for x in (means, head))
    return with_degrees(fw.xp, scores, means, head, LEVELS)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_values_are_those_of_float64(name):
    fw = framework(name)
    scores = scored(fw)
    expected = -np.log(shares()[range(4), LEVELS])
    np.testing.assert_allclose(fw.numpy(scores.degree), expected, rtol=1e-6)
    hits = shares().argmax(1) == LEVELS
    assert 0 < hits.sum() < 4
    np.testing.assert_array_equal(fw.numpy(scores.degree_hit), hits)


@pytest.mark.parametrize("name", ["torch64", "torch32", "mlx32"])
def test_gradients_by_hand(name):
    """∂/∂W = Σ (softmax − e_level) h̄ᵀ and ∂/∂h̄ = Wᵀ(softmax − e_level)."""
    fw = framework(name)
    error = shares() - np.eye(3)[LEVELS]
    of_head = gradient(fw, lambda head: scored(fw, head=head).degree.sum(), HEAD)
    np.testing.assert_allclose(of_head, error.T @ MEANS, rtol=1e-6, atol=1e-6)
    of_means = gradient(fw, lambda means: scored(fw, means=means).degree.sum(), MEANS)
    np.testing.assert_allclose(of_means, error @ HEAD, rtol=1e-6, atol=1e-6)


def test_a_head_of_zeros_tells_nothing():
    scores = scored(framework("numpy64"), head=HEAD * 0)
    np.testing.assert_allclose(scores.degree, np.log(3))
    assert not scores.degree_hit.any()


def test_gamma_weighs_both_sides():
    plain, scores = Scores(LOGPS, LENGTHS), scored(framework("numpy64"))
    bare = ObjectiveConfig(objective="dpo")
    weighed = dataclasses.replace(bare, degree_weight=0.5)
    expected = pair_losses(plain, LOGPS * 0, bare)
    degree = -np.log(shares()[range(4), LEVELS])
    found = pair_losses(scores, LOGPS * 0, weighed)
    np.testing.assert_allclose(found, expected + 0.5 * (degree[:2] + degree[2:]))
    assert (pair_losses(scores, LOGPS * 0, bare) == expected).all(), "γ = 0, bit for bit"
    assert (pair_losses(plain, LOGPS * 0, weighed) == expected).all(), "nothing was removed"
    start = losses_at_reference(scores, LOGPS, weighed)
    np.testing.assert_allclose(start, np.log(2) + 0.5 * (degree[:2] + degree[2:]))
    metrics = preference_metrics(scores, LOGPS * 0, weighed)
    assert metrics["fpo/degree"] == pytest.approx(degree.mean())
    assert metrics["fpo/degree_hit"] == scores.degree_hit.mean()


@pytest.mark.parametrize(("part", "there"), [("constraint", False), ("preference", True)])
def test_degrees_are_part_of_the_preference(part, there):
    fw = framework("torch64")
    config = ObjectiveConfig(objective="dpo", degree_weight=0.5)

    def loss(head):
        scores = isolated(fw.xp, scored(fw, head=head), part)
        return objective_losses(fw.xp, scores, fw.array(LOGPS), config).sum()

    assert gradient(fw, loss, HEAD).any() == there


def settings(**changes):
    return TrainConfig(model="m", data="d", output="o", alpha=0.0, **changes)


def test_draws_depend_on_seed_step_and_row():
    pairs = random_pairs(12, seed=3)
    degrader = Degrader.of(settings(degree_weight=0.1), WordTokenizer())
    whole = degrader.degraded(collate(pairs, range(12)), 7).degraded
    some = degrader.degraded(collate(pairs, [4, 9]), 7).degraded
    assert set(whole.levels) == {0, 1, 2, 3}
    assert (whole.levels[:12] != whole.levels[12:]).any(), "each side has its own"
    places = [4, 9, 16, 21]
    np.testing.assert_array_equal(some.levels, whole.levels[places])
    np.testing.assert_array_equal(some.batch.lengths, whole.batch.lengths[places])
    np.testing.assert_array_equal(some.batch.rows, [4, 9])
    for other in (
        degrader.degraded(collate(pairs, range(12)), 8),
        dataclasses.replace(degrader, seed=1).degraded(collate(pairs, range(12)), 7),
    ):
        assert (other.degraded.levels != whole.levels).any()


@pytest.mark.parametrize("removal", ["keywords", "random"])
def test_variants_lose_words_alone(removal):
    """A text without stop words is one phrase: levels above 0 remove it all, and the end stays."""
    pairs = random_pairs(8, seed=4)
    rows = [([*pair.prompt], [*pair.chosen, 2], [*pair.rejected, 2]) for pair in pairs]
    pairs = type(pairs).from_lists(rows)
    config = settings(degree_weight=0.1, degree_removal=removal, degree_levels=2)
    batch = Degrader.of(config, WordTokenizer()).degraded(collate(pairs, range(8)), 1)
    degraded = batch.degraded
    np.testing.assert_array_equal(degraded.batch.prompt_lengths, batch.prompt_lengths)
    for i, level in enumerate(degraded.levels):
        prompt, end = batch.prompt_lengths[i], batch.lengths[i]
        before, after = batch.tokens[i, :end], degraded.batch.tokens[i]
        expected = before if level == 0 else [*before[:prompt], 2]
        np.testing.assert_array_equal(after[: degraded.batch.lengths[i]], expected)
    assert set(degraded.levels) == {0, 1}


def test_no_degrees_without_a_weight():
    assert Degrader.of(settings(), WordTokenizer()) is None


def test_optimizers_without_gradients_have_no_degrees():
    with pytest.raises(ConfigError, match="degree_weight is set, but the optimizer lozo only"):
        settings(degree_weight=0.1, optimizer="lozo")
