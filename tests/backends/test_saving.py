"""What is saved on one backend goes on, with equal numbers, on the other and in its libraries."""

import dataclasses
import importlib

import numpy as np
import pytest

from fpo_core.adapters.lora import Adapter
from fpo_core.adapters.reader import load_adapter
from fpo_core.adapters.writer import save_adapter
from fpo_core.config import AdapterConfig, OptimiserConfig
from fpo_core.errors import ModelError
from fpo_core.models.layout import Layout
from tests.backends.support import OBJECTIVE, difference, reference_of, shaken
from tests.helpers import BACKENDS, random_batch

KINDS = ("lora", "dora", "full")
OTHER = {"torch": "mlx", "mlx": "torch"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_layers", [-1, 2])
def test_backends_train_the_same_weights_from_the_same_start(make_policy, kind, num_layers):
    first, second = (
        make_policy(backend, fine_tune_type=kind, num_layers=num_layers) for backend in BACKENDS
    )
    start = first.trained()
    assert start.keys() == second.trained().keys()
    assert all((start[name] == w).all() for name, w in second.trained().items())
    assert all(w.dtype == np.float32 for w in start.values())
    for field in ("layers", "hidden_size", "parameters", "trained_parameters", "dtype"):
        assert getattr(first.info, field) == getattr(second.info, field), field
    assert first.info.trained_parameters == sum(w.size for w in start.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", BACKENDS)
@pytest.mark.parametrize("across", [False, True])
def test_a_run_goes_on_from_saved_weights_and_moments(make_policy, kind, source, across):
    batch = random_batch(4)
    policy = make_policy(source, fine_tune_type=kind)
    reference = reference_of(policy, batch)

    def step(policy):
        policy.accumulate(batch, reference, OBJECTIVE, 0.25)
        policy.apply_gradients(1e-3, 1.0)

    policy.prepare_training(OptimiserConfig())
    for _ in range(3):
        step(policy)
    weights, state = policy.trained(), policy.optimizer_state()
    assert int(state["step"]) == 3
    resumed = make_policy(OTHER[source] if across else source, fine_tune_type=kind)
    resumed.prepare_training(OptimiserConfig())
    resumed.load_trained(weights)
    resumed.load_optimizer_state(state)
    assert all((resumed.trained()[name] == w).all() for name, w in weights.items())
    loaded = resumed.optimizer_state()
    assert loaded.keys() == state.keys()
    assert all((loaded[name] == value).all() for name, value in state.items())
    step(policy)
    step(resumed)
    moved = {name: w - weights[name] for name, w in policy.trained().items()}
    also = {name: w - weights[name] for name, w in resumed.trained().items()}
    assert difference(also, moved) < 1e-2 if across else difference(also, moved) == 0


@pytest.mark.parametrize("source", BACKENDS)
@pytest.mark.parametrize("target", BACKENDS)
def test_a_state_saved_before_the_first_step_can_be_loaded(make_policy, source, target):
    first, second = make_policy(source), make_policy(target)
    for policy in (first, second):
        policy.prepare_training(OptimiserConfig())
    state = first.optimizer_state()
    assert int(state["step"]) == 0
    second.load_optimizer_state(state)
    assert second.optimizer_state().keys() == state.keys()


def test_weights_of_another_run_are_refused(backend, make_policy):
    policy = make_policy(backend)
    with pytest.raises(ModelError, match="belongs to another model or rank"):
        policy.load_trained(make_policy(backend, rank=4).trained())
    with pytest.raises(ModelError, match="missing"):
        policy.load_trained(make_policy(backend, num_layers=1).trained())


@pytest.fixture
def adapter(make_policy, tmp_path):
    """An adapter on the last two blocks, saved; and what our policies score with it."""
    config = AdapterConfig(num_layers=2, rank=4, scale=3.0, target_modules=("q_proj", "up_proj"))
    settings = dataclasses.asdict(config)
    policy = make_policy("torch", sae=None, **settings)
    plain = policy.score(BATCH).logps
    policy.load_trained(shaken(policy.trained(), 0.1))
    made = Adapter(config.rank, config.scale, config.dropout, config.num_layers, policy.trained())
    save_adapter(
        tmp_path,
        made,
        base_model="tiny",
        layout=Layout(),
    )
    logps = policy.score(BATCH).logps
    assert (np.abs(logps - plain) > 1e-2).all()
    return tmp_path, logps, settings


BATCH = random_batch(4)


def completion_logps(logits):
    """Summed log-probabilities of the batch's completions, in float64."""
    logits = np.asarray(logits, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    picked = np.take_along_axis(log_p[:, :-1], BATCH.tokens[:, 1:, None], -1)[..., 0]
    return (picked * BATCH.completion_mask()[:, 1:]).sum(1)


def test_peft_opens_our_adapter(adapter, tiny):
    torch, peft = importlib.import_module("torch"), importlib.import_module("peft")
    transformers = importlib.import_module("transformers")
    folder, expected, _ = adapter
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny)
    model = peft.PeftModel.from_pretrained(base, folder).eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(BATCH.tokens).long()).logits.numpy()
    np.testing.assert_allclose(completion_logps(logits), expected, rtol=1e-5)


def test_mlx_lm_opens_our_adapter(adapter, tiny):
    mx = importlib.import_module("mlx.core")
    folder, expected, _ = adapter
    utils = importlib.import_module("mlx_lm.utils")
    tuner = importlib.import_module("mlx_lm.tuner.utils")
    # mlx-lm itself reads only a top-level rope_theta
    model, _ = utils.load_model(tiny, model_config={"rope_theta": 500.0})
    model = tuner.load_adapters(model, str(folder))
    model.eval()
    logits = np.array(model(mx.array(BATCH.tokens)))
    np.testing.assert_allclose(completion_logps(logits), expected, rtol=1e-5)


def test_our_policies_open_the_adapter(backend, adapter, make_policy):
    folder, expected, settings = adapter
    policy = make_policy(backend, sae=None, **settings)
    policy.load_trained(load_adapter(folder).weights)
    np.testing.assert_allclose(policy.score(BATCH).logps, expected, rtol=1e-5)


@pytest.mark.parametrize("source", BACKENDS)
@pytest.mark.parametrize("target", BACKENDS)
def test_a_fully_trained_model_opens_on_both(make_policy, tmp_path, source, target):
    policy = make_policy(source, fine_tune_type="full")
    policy.load_trained(shaken(policy.trained()))
    expected = policy.score(BATCH)
    policy.save_model(tmp_path / "model")
    found = make_policy(target, tmp_path / "model").score(BATCH)
    np.testing.assert_allclose(found.logps, expected.logps, rtol=1e-5)
    np.testing.assert_allclose(found.pooled, expected.pooled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("source", BACKENDS)
def test_a_saved_model_opens_in_transformers(make_policy, tmp_path, source):
    torch = importlib.import_module("torch")
    transformers = importlib.import_module("transformers")
    policy = make_policy(source, fine_tune_type="full")
    policy.load_trained(shaken(policy.trained()))
    policy.save_model(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(BATCH.tokens).long()).logits.numpy()
    np.testing.assert_allclose(completion_logps(logits), policy.score(BATCH).logps, rtol=1e-5)


def test_a_folder_without_a_model_is_one_sentence(backend, make_policy, tmp_path):
    with pytest.raises(ModelError, match=r"load the model|config\.json") as caught:
        make_policy(backend, tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"load the model|config\.json"):
        make_policy(backend, tmp_path)
