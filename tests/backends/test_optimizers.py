"""The frameworks' optimizers take the step of their papers, and go on from each other's state."""

import numpy as np
import pytest

from fpo_core.backend.optimizer_state import state_parts
from fpo_core.config import OptimiserConfig
from fpo_core.errors import BackendError, ConfigError, TrainingError
from tests.backends.support import OBJECTIVE, difference, gradients, reference_of, shaken
from tests.helpers import BACKENDS, random_batch

BATCH = random_batch(4)
RATE = 1e-3


def trained_policy(make_policy, backend, kind):
    policy = make_policy(backend, fine_tune_type=kind)
    reference = reference_of(policy, BATCH)
    policy.load_trained(shaken(policy.trained(), 0.02))
    return policy, reference


def step(policy, reference, rate=RATE):
    policy.accumulate(BATCH, reference, OBJECTIVE, 0.25)
    policy.apply_gradients(rate, 1e9)


def adamw(weight, g):
    return weight - RATE * (g / (np.abs(g) + 1e-8) + 0.1 * weight)


def lion(weight, g):
    return (1 - RATE * 0.1) * weight - RATE * np.sign(g)


def adafactor(weight, g):
    """Algorithm 4 of 1804.04235 at its first step, where β₂ is 0."""
    squares = g**2 + 1e-36
    if g.ndim > 1:
        squares = squares.mean(1)[:, None] * squares.mean(0) / squares.mean()
    update = g / np.sqrt(squares)
    update /= max(1.0, np.sqrt((update**2).mean()))
    return weight - RATE * max(1e-3, np.sqrt((weight**2).mean())) * update


FIRST_STEP = {"adamw": adamw, "adafactor": adafactor, "lion": lion}
PLACES = [(name, b) for name in FIRST_STEP for b in BACKENDS if (name, b) != ("lion", "torch")]


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize(("name", "where"), PLACES)
def test_the_first_step_is_the_papers(make_policy, name, where, kind):
    policy, reference = trained_policy(make_policy, where, kind)
    before = {n: w.astype(np.float64) for n, w in policy.trained().items()}
    slope = gradients(policy, [(BATCH, reference)])
    config = OptimiserConfig(optimizer=name, weight_decay=0.0 if name == "adafactor" else 0.1)
    policy.prepare_training(config)
    step(policy, reference)
    after = policy.trained()
    for weight, g in slope.items():
        expected = FIRST_STEP[name](before[weight], g.astype(np.float64))
        # Where a gradient is noise its sign is, too.
        sure = np.abs(g) > 1e-4 * np.abs(g).max()
        found = np.where(sure, after[weight], expected)
        np.testing.assert_allclose(found, expected, atol=2e-2 * RATE, rtol=1e-6, err_msg=weight)
    assert policy.optimizer_state()["step"] == 1


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("source", BACKENDS)
@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_a_state_goes_on_on_the_other_backend(make_policy, source, kind, name):
    other = BACKENDS[1 - BACKENDS.index(source)]
    policy, reference = trained_policy(make_policy, source, kind)
    policy.prepare_training(OptimiserConfig(optimizer=name))
    for _ in range(3):
        step(policy, reference)
    weights, state = policy.trained(), policy.optimizer_state()
    expected = {
        f"{w}.{part}": size
        for w, array in weights.items()
        for part, size in state_parts(name, array.shape).items()
    }
    assert {n: a.shape for n, a in state.items()} == expected | {"step": ()}
    moved = []
    for backend in (source, other):
        resumed = make_policy(backend, fine_tune_type=kind)
        resumed.prepare_training(OptimiserConfig(optimizer=name))
        resumed.load_trained(weights)
        resumed.load_optimizer_state(state)
        assert all((resumed.optimizer_state()[n] == a).all() for n, a in state.items())
        step(resumed, reference)
        moved.append({n: w - weights[n] for n, w in resumed.trained().items()})
    step(policy, reference)
    straight = {n: w - weights[n] for n, w in policy.trained().items()}
    assert difference(moved[0], straight) == 0
    across = difference(moved[1], straight)
    assert across < 1e-2
    fresh, _ = trained_policy(make_policy, source, kind)
    fresh.prepare_training(OptimiserConfig(optimizer=name))
    fresh.load_trained(weights)
    step(fresh, reference)
    forgetful = {n: w - weights[n] for n, w in fresh.trained().items()}
    assert difference(forgetful, straight) > 5 * across, "the state made no difference"


def test_adafactors_rate_is_bounded_alike(make_policy):
    """At step 3 a rate of 1 is 1/√3."""
    moved = []
    for backend in BACKENDS:
        policy, reference = trained_policy(make_policy, backend, "lora")
        policy.prepare_training(OptimiserConfig(optimizer="adafactor"))
        for rate in (0.0, 0.0, 1.0):
            before = policy.trained()
            step(policy, reference, rate)
        moved.append({n: w - before[n] for n, w in policy.trained().items()})
    assert difference(*moved) < 1e-2
    name = "0.self_attn.q_proj.lora_A"
    size = np.sqrt((moved[0][name] ** 2).mean() / (before[name] ** 2).mean())
    assert size == pytest.approx(3**-0.5, rel=0.05)


def test_what_cannot_be_had_is_refused_by_name(make_policy):
    with pytest.raises(BackendError, match="lion, which torch does not have: choose one of adamw"):
        make_policy("torch").prepare_training(OptimiserConfig(optimizer="lion"))
    with pytest.raises(ConfigError, match="expected 0: MLX and torch decay differently"):
        OptimiserConfig(optimizer="adafactor", weight_decay=0.1)
    policy = make_policy("mlx")
    policy.prepare_training(OptimiserConfig(optimizer="lion"))
    state = policy.optimizer_state()
    for backend in BACKENDS:
        other = make_policy(backend)
        other.prepare_training(OptimiserConfig())
        with pytest.raises(TrainingError, match="does not fit adamw"):
            other.load_optimizer_state(state)


def test_gradients_of_adapters_keep_their_place(make_policy):
    """Between steps too, and at zero; those of a whole model come and go."""
    policy, reference = trained_policy(make_policy, "torch", "lora")
    policy.prepare_training(OptimiserConfig())
    weights = list(policy._trainable.parameters.values())
    places = [weight.grad.data_ptr() for weight in weights]
    for _ in range(2):
        policy.accumulate(BATCH, reference, OBJECTIVE, 0.25)
        assert any(weight.grad.any() for weight in weights)
        policy.apply_gradients(RATE, 1e9)
        assert [weight.grad.data_ptr() for weight in weights] == places
        assert not any(weight.grad.any() for weight in weights)
    whole, reference = trained_policy(make_policy, "torch", "full")
    whole.prepare_training(OptimiserConfig())
    step(whole, reference)
    assert all(weight.grad is None for weight in whole._trainable.parameters.values())


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_fused_step_clips_as_a_plain_one(make_policy, monkeypatch, kind):
    """CUDA's way, here on the CPU: AdamW divides the gradients by itself."""
    states = []
    for fused in (False, True):
        monkeypatch.setattr("fpo_torch.optimizer._fused", lambda weight, fused=fused: fused)
        policy, reference = trained_policy(make_policy, "torch", kind)
        policy.prepare_training(OptimiserConfig())
        for limit in (1e-3, 1e9):
            policy.accumulate(BATCH, reference, OBJECTIVE, 0.25)
            policy.apply_gradients(RATE, limit)
        states.append({**policy.trained(), **policy.optimizer_state()})
    plain, divided = states
    for name, values in plain.items():
        np.testing.assert_allclose(divided[name], values, rtol=1e-3, atol=2e-6, err_msg=name)
