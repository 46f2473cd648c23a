"""The differentiated step: what its gradient is, and what must not change it."""

import dataclasses
import math

import numpy as np
import pytest

from fpo_core.arrays import numpy_ops
from fpo_core.config import ObjectiveConfig, OptimiserConfig
from fpo_core.loss.metrics import pair_losses, preference_metrics
from fpo_core.sae.hook import SITES, Hook
from tests.backends.support import (
    OBJECTIVE,
    difference,
    gradients,
    part,
    part_of_reference,
    reference_of,
    shaken,
)
from tests.helpers import BACKENDS, random_batch, random_sae

KINDS = ("lora", "dora", "full")
PREFERENCE_ALONE = dataclasses.replace(OBJECTIVE, alpha=0.0)


def start_of(policy, scale=0.05):
    """A batch, its reference, and the policy moved away from that."""
    batch = random_batch(4)
    reference = reference_of(policy, batch)
    policy.load_trained(shaken(policy.trained(), scale))
    return batch, reference


@pytest.mark.parametrize("kind", KINDS)
def test_the_start_has_loss_log_2_and_no_d(backend, make_policy, kind):
    policy, batch = make_policy(backend, fine_tune_type=kind), random_batch(8)
    reference = reference_of(policy, batch)
    policy.prepare_training(OptimiserConfig())
    scores = policy.accumulate(batch, reference, OBJECTIVE, 1 / 8)
    losses = pair_losses(scores, reference.logps, OBJECTIVE)
    np.testing.assert_allclose(losses, math.log(2), atol=1e-4)
    assert scores.d.max() < 1e-8


@pytest.mark.parametrize("kind", KINDS)
def test_backends_agree_on_the_gradient(make_policy, kind):
    found = []
    for backend in BACKENDS:
        policy = make_policy(backend, fine_tune_type=kind)
        batch, reference = start_of(policy)
        found.append(gradients(policy, [(batch, reference)]))
    assert difference(*found) < 1e-4


@pytest.mark.parametrize("site", SITES)
def test_backends_agree_on_the_gradient_at_every_site(make_policy, site):
    found = []
    for backend in BACKENDS:
        policy = make_policy(backend, hook=str(Hook(1, site)))
        batch, reference = start_of(policy)
        found.append(gradients(policy, [(batch, reference)]))
        plain = gradients(policy, [(batch, reference)], PREFERENCE_ALONE)
        assert difference(plain, found[-1]) > 0.01, "the constraint has no gradient here"
    assert difference(*found) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("site", SITES)
def test_checkpointing_changes_no_gradient(backend, make_policy, site, kind):
    found = []
    for checkpoint in (False, True):
        options = {"hook": str(Hook(1, site)), "fine_tune_type": kind}
        policy = make_policy(backend, grad_checkpoint=checkpoint, **options)
        batch, reference = start_of(policy)
        found.append(gradients(policy, [(batch, reference)]))
        again = gradients(policy, [(batch, reference)])
        assert difference(again, found[-1]) < 1e-5
    assert difference(found[1], found[0]) < 1e-5


def test_checkpointing_repeats_the_dropout_of_the_forward_pass(backend, make_policy):
    found = []
    for checkpoint, seed in ((False, 7), (True, 7), (False, 8)):
        policy = make_policy(backend, grad_checkpoint=checkpoint, dropout=0.3)
        batch, reference = start_of(policy)
        policy.seed(seed)
        found.append(gradients(policy, [(batch, reference)]))
    assert difference(found[1], found[0]) < 1e-5
    assert difference(found[2], found[0]) > 0.1, "dropout did nothing"


def test_the_gradient_is_the_slope_of_the_loss(backend, make_policy):
    """A central difference along a random direction, constraint included."""
    policy = make_policy(backend)
    batch, reference = start_of(policy)
    start = policy.trained()
    gradient = gradients(policy, [(batch, reference)])
    # Along the gradient itself, where the difference is largest beside float32's noise
    size = np.sqrt(sum((g**2).sum() for g in gradient.values()))

    def loss(step):
        policy.load_trained({n: w + step * gradient[n] / size for n, w in start.items()})
        scores = policy.score(batch, reference, dataclasses.replace(OBJECTIVE, alpha=0.0))
        # sg(D_w) must be held where it was: take D_l alone from the moved weights
        d = policy.score(batch, reference, OBJECTIVE).d
        d = np.concatenate([held, d[batch.pairs :]])
        moved = dataclasses.replace(scores, d=d)
        return 0.25 * pair_losses(moved, reference.logps, OBJECTIVE).sum()

    held = policy.score(batch, reference, OBJECTIVE).d[: batch.pairs]
    slope = (loss(2e-3) - loss(-2e-3)) / 4e-3
    np.testing.assert_allclose(slope, size, rtol=2e-2)


def test_the_chosen_side_of_d_has_no_gradient_unless_asked(backend, make_policy):
    """With D_l = 0 a pair's gradient is that of the preference alone, times σ(−u) / σ(−u₀).

    u₀ = β Δ is without the constraint and u = β (Δ + α D_w) with it, Δ being the difference of the
    mean log-probabilities, policy less reference: of the constraint only the factor is left.
    """
    policy = make_policy(backend)
    batch, reference = start_of(policy)
    pooled = reference.pooled.copy()
    pooled[batch.pairs :] = policy.score(batch).pooled[batch.pairs :]
    swapped = dataclasses.replace(reference, pooled=pooled)
    pair = part(batch, [0]), part_of_reference(swapped, batch, [0])
    scores = policy.score(*pair, OBJECTIVE)
    assert scores.d[1] < 1e-8 < scores.d[0]
    means = scores.mean_logps - pair[1].logps / scores.lengths
    u0 = OBJECTIVE.beta * (means[0] - means[1])
    u = u0 + OBJECTIVE.beta * OBJECTIVE.alpha * scores.d[0]
    factor = (1 + np.exp(u0)) / (1 + np.exp(u))
    assert factor < 0.9, "the constraint is too weak for this test"
    preference = gradients(policy, [pair], PREFERENCE_ALONE)
    found = gradients(policy, [pair])
    assert difference(found, {name: factor * g for name, g in preference.items()}) < 1e-4
    asked = gradients(policy, [pair], dataclasses.replace(OBJECTIVE, stop_gradient=False))
    assert difference(asked, found) > 0.01


def test_four_small_batches_are_one_large_one(backend, make_policy):
    policy, batch = make_policy(backend), random_batch(8)
    reference = reference_of(policy, batch)
    policy.load_trained(shaken(policy.trained()))
    whole = gradients(policy, [(batch, reference)], weight=1 / 8)
    parts = [[0, 1], [2, 3], [4, 5], [6, 7]]
    small = [(part(batch, p), part_of_reference(reference, batch, p)) for p in parts]
    assert difference(gradients(policy, small, weight=1 / 8), whole) < 1e-5


def test_training_moves_nothing_but_what_is_trained(backend, make_policy):
    policy = make_policy(backend, num_layers=1)
    batch, reference = start_of(policy)
    assert {name.split(".")[0] for name in policy.trained()} == {"2"}
    start = policy.trained()
    policy.prepare_training(OptimiserConfig())
    policy.accumulate(batch, reference, PREFERENCE_ALONE, 0.25)
    policy.apply_gradients(1e-2, 1.0)
    moved = policy.trained()
    assert all((moved[name] != start[name]).any() for name in start)
    policy.load_trained(start)
    back = policy.score(batch)
    policy.load_trained({name: np.zeros_like(w) for name, w in start.items()})
    np.testing.assert_allclose(policy.score(batch).logps, reference.logps, rtol=1e-6)
    assert (back.logps != reference.logps).any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_lowers_the_loss_and_is_of_adams_size(backend, make_policy, kind):
    policy = make_policy(backend, fine_tune_type=kind)
    batch, reference = start_of(policy, 0.01)
    policy.prepare_training(OptimiserConfig())
    losses = []
    for step in range(3):
        before = policy.trained()
        scores = policy.accumulate(batch, reference, OBJECTIVE, 0.25)
        losses.append(pair_losses(scores, reference.logps, OBJECTIVE).mean())
        policy.apply_gradients(1e-3, 1e9)
        if step == 0:  # Adam with bias correction: the first step is lr·sign(g)
            after = policy.trained()
            moves = np.concatenate([np.abs(after[n] - before[n]).ravel() for n in after])
            np.testing.assert_allclose(np.median(moves), 1e-3, rtol=1e-2)
            assert moves.max() < 1.01e-3
    assert losses[2] < losses[1] < losses[0]


def test_weight_decay_is_decoupled(backend, make_policy):
    policy = make_policy(backend, fine_tune_type="full")
    batch, reference = start_of(policy)
    moves = []
    start = policy.trained()
    for decay in (0.0, 0.1):
        policy.load_trained(start)
        policy.prepare_training(OptimiserConfig(weight_decay=decay))
        policy.accumulate(batch, reference, OBJECTIVE, 0.25)
        policy.apply_gradients(1e-2, 1.0)
        moves.append(policy.trained())
    for name, weight in start.items():
        shrunk = moves[0][name] - 1e-2 * 0.1 * weight
        np.testing.assert_allclose(moves[1][name], shrunk, atol=1e-5)


def test_clipping_scales_the_gradient_to_its_bound(backend, make_policy):
    policy = make_policy(backend)
    batch, reference = start_of(policy)
    free = gradients(policy, [(batch, reference)])
    policy.prepare_training(OptimiserConfig())
    policy.accumulate(batch, reference, OBJECTIVE, 0.25)
    norm = policy.apply_gradients(0.0, 1e-3)
    state = policy.optimizer_state()
    clipped = {name: state[f"{name}.m"] / 0.1 for name in free}
    size = np.sqrt(sum((g**2).sum() for g in clipped.values()))
    np.testing.assert_allclose(size, 1e-3, rtol=1e-3)
    np.testing.assert_allclose(norm, np.sqrt(sum((g**2).sum() for g in free.values())), rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_that_is_not_finite_takes_no_step(backend, make_policy, kind):
    policy = make_policy(backend, fine_tune_type=kind)
    batch, reference = start_of(policy)
    policy.prepare_training(OptimiserConfig())
    policy.accumulate(batch, reference, OBJECTIVE, 0.25)
    policy.apply_gradients(1e-3, 1.0)
    weights, state = policy.trained(), policy.optimizer_state()
    bad = dataclasses.replace(reference, logps=np.full_like(reference.logps, np.nan))
    policy.accumulate(batch, bad, OBJECTIVE, 0.25)
    assert not math.isfinite(policy.apply_gradients(1e-3, 1.0))
    for kept, now in ((weights, policy.trained()), (state, policy.optimizer_state())):
        assert all((kept[name] == now[name]).all() for name in kept)
    policy.accumulate(batch, reference, OBJECTIVE, 0.25)  # nothing of it is left behind
    assert math.isfinite(policy.apply_gradients(1e-3, 1.0))


def test_dropped_gradients_are_gone(backend, make_policy):
    policy = make_policy(backend)
    batch, reference = start_of(policy)
    expected = gradients(policy, [(batch, reference)])
    policy.prepare_training(OptimiserConfig())
    policy.accumulate(batch, reference, OBJECTIVE, 5.0)
    policy.drop_gradients()
    policy.accumulate(batch, reference, OBJECTIVE, 0.25)
    policy.apply_gradients(0.0, 1e9)
    state = policy.optimizer_state()
    assert difference({n: state[f"{n}.m"] / 0.1 for n in expected}, expected) < 1e-5


def test_dropout_is_on_in_a_step(backend, make_policy):
    policy = make_policy(backend, dropout=0.5)
    policy.prepare_training(OptimiserConfig())
    batch, reference = start_of(policy)
    first = policy.accumulate(batch, reference, OBJECTIVE, 0.25)
    second = policy.accumulate(batch, reference, OBJECTIVE, 0.25)
    assert (first.logps != second.logps).all()


@pytest.mark.parametrize("checkpoint", [False, True])
def test_small_steps_of_full_training_in_half_precision_are_not_lost(
    backend, make_policy, checkpoint
):
    """At lr 5e-7 weights kept in bfloat16 would not move."""
    half = {"fine_tune_type": "full", "dtype": "bfloat16"}
    policy = make_policy(backend, grad_checkpoint=checkpoint, **half)
    batch = random_batch(4)
    reference = reference_of(policy, batch)
    policy.prepare_training(OptimiserConfig())
    start = policy.trained()
    scores = policy.accumulate(batch, reference, OBJECTIVE, 0.25)
    np.testing.assert_allclose(
        pair_losses(scores, reference.logps, OBJECTIVE), math.log(2), atol=5e-3
    )
    policy.apply_gradients(5e-7, 1.0)
    moved = policy.trained()
    names = [name for name in start if name.endswith("q_proj.weight")]
    assert names
    for name in names:
        steps = np.abs(moved[name] - start[name])
        np.testing.assert_allclose(np.median(steps), 5e-7, rtol=0.1)
        assert steps.max() < 6e-7


def test_metrics_of_a_step_are_those_of_its_scores(backend, make_policy):
    policy = make_policy(backend)
    policy.prepare_training(OptimiserConfig())
    batch, reference = start_of(policy)
    scores = policy.accumulate(batch, reference, OBJECTIVE, 0.25)
    found = preference_metrics(scores, reference.logps, OBJECTIVE)
    means = scores.mean_logps - reference.logps / scores.lengths
    delta = np.split(means, 2)[0] - np.split(means, 2)[1]
    d_chosen, d_rejected = np.split(scores.d, 2)
    u = OBJECTIVE.beta * (delta - OBJECTIVE.alpha * (d_rejected - d_chosen))
    np.testing.assert_allclose(found["loss"], np.logaddexp(0, -u).mean(), rtol=1e-5)


def test_alpha_zero_without_an_autoencoder(backend, make_policy):
    with_sae, without = make_policy(backend), make_policy(backend, sae=None)
    batch, reference = start_of(with_sae)
    without.load_trained(with_sae.trained())
    plain = dataclasses.replace(reference, pooled=None, truncated=None)
    objective = ObjectiveConfig(alpha=0.0, beta=OBJECTIVE.beta)
    expected = gradients(with_sae, [(batch, reference)], objective)
    assert difference(gradients(without, [(batch, plain)], objective), expected) < 1e-6
    assert without.score(batch).pooled is None


def test_the_autoencoder_in_use_can_fire():
    """The tests above rest on it: about half of the features are on."""
    h = np.random.default_rng(0).normal(size=(100, 32))
    share = (random_sae(32).encode(numpy_ops, h) > 0).mean()
    assert 0.3 < share < 0.7


def test_backends_agree_on_weighted_features(make_policy):
    found, plain = [], []
    for backend in BACKENDS:
        policy = make_policy(backend)
        batch, reference = start_of(policy)
        weights = np.zeros(reference.pooled.shape[1], np.float32)
        weights[::7] = np.linspace(1, 3, len(weights[::7]))
        weighted = dataclasses.replace(reference, weights=weights)
        found.append(gradients(policy, [(batch, weighted)]))
        plain.append(gradients(policy, [(batch, reference)]))
    assert difference(*found) < 1e-4
    assert difference(found[0], plain[0]) > 0.01, "the weights change nothing"


@pytest.mark.parametrize("sae", ["topk", "abstopk"])
def test_straight_through_reaches_features_that_are_off(make_policy, sae):
    through = dataclasses.replace(OBJECTIVE, straight_through=True)
    found, plain = [], []
    for backend in BACKENDS:
        policy = make_policy(backend, sae=sae)
        batch, reference = start_of(policy)
        scores = policy.score(batch, reference, OBJECTIVE)
        assert ((scores.pooled == 0) & (reference.pooled != 0)).any()
        np.testing.assert_array_equal(policy.score(batch, reference, through).d, scores.d)
        found.append(gradients(policy, [(batch, reference)], through))
        plain.append(gradients(policy, [(batch, reference)]))
    assert difference(*found) < 1e-4
    assert difference(found[0], plain[0]) > 1e-3, "nothing came through"
