"""From dense outputs to `Scores`: alignment, masks, pooled features and D, by hand."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpo_core.arrays import numpy_ops
from fpo_core.config import ObjectiveConfig
from fpo_core.data.batches import Batch
from fpo_core.loss.dense import Outputs, ReferenceBatch, Targets, score
from fpo_core.loss.scores import Scores, join
from tests.helpers import FRAMEWORKS, framework, identity_sae, random_batch, random_sae

# One pair: prompt 5 6, chosen 7 8 9, rejected 7; padded to 6.
BATCH = Batch(
    tokens=np.array([[5, 6, 7, 8, 9, 0], [5, 6, 7, 0, 0, 0]], np.int32),
    prompt_lengths=np.array([2, 2], np.int32),
    lengths=np.array([5, 3], np.int32),
    rows=np.array([0]),
)


def test_targets_begin_where_the_first_completion_does():
    targets, start = Targets.of(BATCH, ())
    assert start == 2
    assert targets.labels.tolist() == [[7, 8, 9, 0], [7, 0, 0, 0]]
    assert targets.mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]


def test_no_prompt_token_is_scored_where_prompts_differ_in_length():
    batch = dataclasses.replace(
        BATCH,
        tokens=np.tile(BATCH.tokens, (2, 1)),
        prompt_lengths=np.array([2, 4, 2, 1], np.int32),
        lengths=np.array([5, 5, 3, 3], np.int32),
        rows=np.array([0, 1]),
    )
    targets, start = Targets.of(batch, ())
    assert start == 1
    assert targets.mask.tolist() == [
        [0, 1, 1, 1, 0],
        [0, 0, 0, 1, 0],
        [0, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
    ]
    assert targets.mask.sum(1).tolist() == batch.completion_lengths().tolist()


def test_an_empty_prompt_leaves_out_the_token_that_nothing_predicts():
    batch = dataclasses.replace(BATCH, prompt_lengths=np.array([0, 0], np.int32))
    targets, start = Targets.of(batch, ())
    assert start == 1
    assert targets.mask.tolist() == [[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]]


def test_untrained_tokens_leave_the_features_but_not_the_log_probability():
    targets, _ = Targets.of(BATCH, (8, 7))
    assert targets.mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
    assert targets.feature_mask.tolist() == [[0, 0, 1, 0], [0, 0, 0, 0]]


def outputs(fw, hidden=True, reference=False):
    """Probability 1/2 on every label of row 0 and 1/4 on every label of row 1, features 1…8."""
    targets, _ = Targets.of(BATCH, (8,))
    probability = np.full((2, 4, 10), 1 / 18)
    probability[1] = 1 / 12
    picked = np.array([1 / 2, 1 / 4])[:, None, None]
    np.put_along_axis(probability, targets.labels[..., None], picked, axis=-1)
    uniform = np.zeros((2, 4, 10)) if reference else None
    h = np.arange(1.0, 17).reshape(2, 4, 2) * [1, -1]
    found = Outputs(
        fw.array(np.log(probability)),
        (fw.array(h),) if hidden else (),
        None if uniform is None else fw.array(uniform),
    )
    return found, Targets(
        fw.array(targets.labels), fw.array(targets.mask * 1.0), fw.array(targets.feature_mask * 1.0)
    )


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_scores_by_hand(name):
    fw = framework(name)
    given, targets = outputs(fw)
    # Row 0: tokens 7 and 9 count (8 is untrained), h = (1, −2) and (5, −6). Row 1: token 7,
    # h = (9, −10). Features are [h⁺, h⁻].
    reference = ReferenceBatch(
        np.zeros(2, np.float32),
        np.array([[1.0, 0, 0, 2], [9, 0, 0, 10]], np.float32),
        np.zeros(2, np.float32),
    )
    found = score(
        fw.xp,
        given,
        targets,
        saes=(identity_sae(2).to(fw.xp, given.logits),),
        reference=reference.astype(fw.xp, given.logits),
        objective=ObjectiveConfig(k=2, normalize_d=False),
    )
    fw.close(found.logps, [3 * math.log(1 / 2), math.log(1 / 4)])
    fw.close(found.lengths, [3, 1])
    fw.close(found.mean_logps, [math.log(1 / 2), math.log(1 / 4)])
    fw.close(found.feature_lengths, [2, 1])
    fw.close(found.pooled, [[3, 0, 0, 4], [9, 0, 0, 10]])
    fw.close(found.d, [((3 - 1) ** 2 + (4 - 2) ** 2) / 2, 0])
    fw.close(found.union, [2, 2])
    fw.close(found.outside_cap, [0, 0])
    assert found.kl is None
    assert found.entropy is None


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_d_of_several_autoencoders_is_the_mean_of_theirs(name):
    """The second's features are half the first's; one feature of each has moved by 2."""
    fw = framework(name)
    given, targets = outputs(fw)
    pooled = np.array([[3.0, 0, 0, 4], [9, 0, 0, 10]])  # as in the test above
    stored = np.concatenate([pooled - [0, 0, 0, 2], pooled / 2 - [2, 0, 0, 0]], 1)
    zeros = np.zeros(2, np.float32)
    sae = identity_sae(2)
    saes = sae, dataclasses.replace(sae, W_enc=sae.W_enc / 2)
    found = score(
        fw.xp,
        dataclasses.replace(given, hidden=given.hidden * 2),
        targets,
        saes=tuple(each.to(fw.xp, given.logits) for each in saes),
        reference=ReferenceBatch(zeros, stored, zeros).astype(fw.xp, given.logits),
        objective=ObjectiveConfig(k=4, normalize_d=False),
    )
    fw.close(found.pooled, np.concatenate([pooled, pooled / 2], 1))
    fw.close(found.d, [(2**2 / 4 + 2**2 / 4) / 2] * 2)
    fw.close(found.union, [4, 4])


def test_kl_and_entropy_are_summed_over_the_completion():
    fw = framework("numpy64")
    given, targets = outputs(fw, hidden=False, reference=True)
    found = score(fw.xp, given, targets, entropy=True)
    # Uniform reference over 10 tokens against 1/2 and nine times 1/18.
    one = 0.1 * math.log(0.1 / 0.5) + 0.9 * math.log(0.1 * 18)
    two = 0.1 * math.log(0.1 / 0.25) + 0.9 * math.log(0.1 * 12)
    np.testing.assert_allclose(found.kl, [3 * one, two])
    entropy = [3 * (math.log(2) / 2 + math.log(18) / 2), math.log(4) / 4 + 0.75 * math.log(12)]
    np.testing.assert_allclose(found.entropy, entropy)
    assert found.pooled is None
    assert found.d is None


def test_policy_features_that_the_cap_cut_off_are_counted():
    fw = framework("numpy64")
    given, targets = outputs(fw)
    pooled = np.array([[3.0, 0, 0, 0], [0.0, 0, 0, 10]])  # row 0 lost feature 3, row 1 feature 0

    def outside(truncated):
        reference = ReferenceBatch(np.zeros(2), pooled, np.array(truncated))
        sae = identity_sae(2)
        options = {
            "saes": (sae,),
            "reference": reference,
            "objective": ObjectiveConfig(k=2, normalize_d=False),
        }
        return score(fw.xp, given, targets, **options).outside_cap.tolist()

    assert outside([1.0, 1.0]) == [1, 1]
    assert outside([1.0, 0.0]) == [1, 0]


def dense(batch, seed=1):
    """Outputs and a reference for every position of a batch, which depend on its tokens alone."""
    generator = np.random.default_rng(seed)
    logits, hidden = generator.normal(size=(64, 64)), generator.normal(size=(64, 8))
    targets, start = Targets.of(batch, (5, 6))
    previous = batch.tokens[:, start - 1 : -1]
    reference = np.abs(generator.normal(size=(64, 40)))[batch.tokens[:, 1]]
    return (
        Outputs(logits[previous] * 3, (hidden[targets.labels],), logits[previous]),
        targets,
        ReferenceBatch(np.zeros(len(reference)), reference, np.ones(len(reference))),
    )


def numpy_scores(batch):
    given, targets, reference = dense(batch)
    options = {
        "saes": (random_sae(8, 40, kind="topk"),),
        "objective": ObjectiveConfig(k=4, normalize_d=False),
    }
    return score(numpy_ops, given, targets, reference=reference, entropy=True, **options)


def select(batch, pairs):
    rows = [*pairs, *(batch.pairs + i for i in pairs)]
    arrays = {name: getattr(batch, name)[rows] for name in ("tokens", "prompt_lengths", "lengths")}
    return Batch(**arrays, rows=batch.rows[pairs]), rows


def assert_equal(found: Scores, expected: Scores, rows=slice(None)):
    names = {field.name for field in dataclasses.fields(Scores)}
    for name in names - {"degree", "degree_hit"}:  # those are of another pass
        value = getattr(expected, name)
        assert value is not None
        np.testing.assert_allclose(
            getattr(found, name), value[rows], rtol=0, atol=1e-9, err_msg=name
        )


@given(st.integers(0, 1000), st.permutations(range(4)), st.integers(1, 4))
def test_padding_order_and_batch_mates_change_nothing(seed, order, count):
    narrow, wide = random_batch(4, seed), random_batch(4, seed, width=96)
    plain = numpy_scores(narrow)
    assert_equal(numpy_scores(wide), plain)
    part, rows = select(narrow, list(order)[:count])
    assert_equal(numpy_scores(part), plain, rows)


def test_join_keeps_chosen_before_rejected():
    one = Scores(logps=np.array([1.0, 2, 3, 4]), lengths=np.ones(4), d=np.arange(4.0))
    two = Scores(logps=np.array([5.0, 6]), lengths=np.ones(2))
    joined = join([one, two])
    assert joined.logps.tolist() == [1, 2, 5, 3, 4, 6]
    assert joined.d is None
