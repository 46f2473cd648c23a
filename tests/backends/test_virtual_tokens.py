"""Soft prompts and prefixes: against PEFT, between backends, and on the packed row."""

import importlib
from typing import Any

import numpy as np
import pytest

from fpo_core.adapters.folders import load_any_adapter, save_trained
from fpo_core.adapters.virtual_tokens import PROMPT, without_virtual_tokens
from fpo_core.backend.policy import Sampling
from fpo_core.config import AdapterConfig, ObjectiveConfig, StepConfig
from fpo_core.data.batches import collate
from fpo_core.errors import ConfigError, ModelError
from fpo_core.models.folder import ModelFolder
from tests.backends.support import (
    OBJECTIVE,
    difference,
    gradients,
    part,
    part_of_reference,
    reference_of,
    shaken,
)
from tests.helpers import BACKENDS, pairs_of_prompts, random_batch

KINDS = ("prompt", "prefix")
COUNT = 5
BATCH = random_batch(4)
DPO = ObjectiveConfig(objective="dpo", beta=0.5)


@pytest.fixture(scope="module")
def opened(make_policy):
    """Policies by backend, kind and path, all with the same moved weights; and their start."""

    def open_one(backend, kind, plain, **options):
        step = StepConfig(plain=plain)
        policy = make_policy(
            backend, step=step, fine_tune_type=kind, virtual_tokens=COUNT, **options
        )
        start = policy.trained()
        policy.load_trained(without_virtual_tokens(start))
        reference = reference_of(policy, BATCH)
        policy.load_trained(shaken(start, 0.3))
        return policy, reference, start

    return {
        (backend, kind, plain): open_one(backend, kind, plain)
        for backend in BACKENDS
        for kind in KINDS
        for plain in (True, False)
    }


@pytest.mark.parametrize("kind", KINDS)
def test_packed_rows_and_backends_agree(opened, kind):
    found = {}
    for backend in BACKENDS:
        for plain in (True, False):
            policy, reference, _ = opened[backend, kind, plain]
            assert policy.info.fallback is None
            found[backend, plain] = gradients(policy, [(BATCH, reference)])
    expected = found["torch", True]
    for name, gradient in found.items():
        assert difference(gradient, expected) < 1e-5, name


@pytest.mark.parametrize("kind", KINDS)
def test_plain_transformers_and_peft(opened, tiny, tmp_path, kind):
    """The folder opens in PEFT with our logits, and PEFT's gradient of the DPO loss is ours."""
    torch, peft, hf = map(importlib.import_module, ("torch", "peft", "transformers"))
    policy, reference, _ = opened["torch", kind, True]
    weights = policy.trained()
    config = AdapterConfig(fine_tune_type=kind, virtual_tokens=COUNT)
    save_trained(tmp_path, weights, config, str(tiny), ModelFolder(tiny, "tiny"))
    base = hf.AutoModelForCausalLM.from_pretrained(tiny)
    model = peft.PeftModel.from_pretrained(base, tmp_path)
    encoder: Any = model.prompt_encoder["default"]
    weight = encoder.embedding.weight.requires_grad_(True)
    tokens = BATCH.tokens[:2, :9]
    logits = model(input_ids=torch.from_numpy(tokens).long()).logits[:, -9:]
    for backend in BACKENDS:
        np.testing.assert_allclose(
            opened[backend, kind, False][0].logits(tokens), logits.detach().numpy(), atol=1e-4
        )
    sums = []
    for row, prompt, length in zip(BATCH.tokens, BATCH.prompt_lengths, BATCH.lengths, strict=True):
        ids = torch.from_numpy(row[:length]).long()[None]
        logps = model(input_ids=ids).logits[0, -int(length) :].log_softmax(-1)
        picked = logps[prompt - 1 : -1].gather(1, ids[0, prompt:, None])
        sums.append(picked.sum())
    h = (torch.stack(sums) - torch.from_numpy(reference.logps)).view(2, -1)
    (-torch.nn.functional.logsigmoid(0.5 * (h[0] - h[1]))).sum().mul(0.25).backward()
    gradient = weight.grad.numpy()
    names = (
        [PROMPT]
        if kind == "prompt"
        else [f"{block}.prefix.{side}" for block in range(3) for side in ("keys", "values")]
    )
    for backend in BACKENDS:
        ours = gradients(opened[backend, kind, False][0], [(BATCH, reference)], DPO)
        joined = np.concatenate([ours[name] for name in names], 1)
        assert difference({"": joined}, {"": gradient}) < 1e-5, backend
    again = load_any_adapter(tmp_path, ModelFolder(tiny, "tiny"))
    assert again.shape() == config
    for name, weight in weights.items():
        np.testing.assert_array_equal(again.weights[name], weight)


@pytest.mark.parametrize("kind", KINDS)
def test_no_rows_are_the_bare_model(opened, make_policy, backend, kind):
    bare = make_policy(backend).score(BATCH)
    policy, _, start = opened[backend, kind, False]
    moved = policy.trained()
    policy.set_reference(without_virtual_tokens(start))
    scores = policy.score(BATCH, at_reference=True)
    np.testing.assert_allclose(scores.logps, bare.logps, rtol=1e-5)
    np.testing.assert_allclose(scores.pooled, bare.pooled, atol=1e-5)
    kl = policy.score(BATCH, kl=True).kl
    assert kl.min() > 0.01
    policy.load_trained(without_virtual_tokens(moved))
    np.testing.assert_allclose(policy.score(BATCH, kl=True).kl, 0, atol=1e-5)
    policy.load_trained(moved)
    np.testing.assert_allclose(policy.score(BATCH, kl=True).kl, kl, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_greedy_completion_is_the_argmax(opened, backend, kind):
    policy = opened[backend, kind, False][0]
    prompts = [BATCH.tokens[i, : BATCH.prompt_lengths[i]] for i in range(3)]
    for prompt, completion in zip(
        prompts, policy.generate(prompts, Sampling(6, temperature=0.0)), strict=True
    ):
        logits = policy.logits(np.concatenate([prompt, completion])[None])[0]
        np.testing.assert_array_equal(logits[len(prompt) - 1 : -1].argmax(-1), completion)


@pytest.mark.parametrize("kind", KINDS)
def test_shared_prompts_and_single_tokens(opened, backend, kind):
    """Pairs of one prompt share its virtual tokens on the row; token scores skip them."""
    batch = collate(pairs_of_prompts(2, 3), range(6))
    plain, packed = (opened[backend, kind, p][0] for p in (True, False))
    for name in ("logps", "pooled"):
        expected, found = (getattr(policy.score(batch), name) for policy in (plain, packed))
        np.testing.assert_allclose(found, expected, atol=2e-4)
    expected, found = (policy.token_scores(batch) for policy in (plain, packed))
    np.testing.assert_allclose(found.logps, expected.logps, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointed_blocks(opened, make_policy, backend, kind):
    policy, reference, _ = opened[backend, kind, False]
    options = {"grad_checkpoint": True, "fine_tune_type": kind, "virtual_tokens": COUNT}
    checkpointed = make_policy(backend, **options)
    checkpointed.load_trained(policy.trained())
    half = part(BATCH, [0, 1]), part_of_reference(reference, BATCH, [0, 1])
    expected, found = (gradients(p, [half], OBJECTIVE) for p in (policy, checkpointed))
    assert difference(found, expected) < 1e-5


def test_what_is_refused(tiny, tmp_path):
    with pytest.raises(ConfigError, match="rank is 4 while fine_tune_type is prefix"):
        AdapterConfig(fine_tune_type="prefix", rank=4)
    model = ModelFolder(tiny, "tiny")
    config = AdapterConfig(fine_tune_type="prompt", virtual_tokens=2)
    save_trained(tmp_path, {PROMPT: np.zeros((2, 7), np.float32)}, config, "m", model)
    with pytest.raises(ModelError, match="the model that the adapter was trained on"):
        load_any_adapter(tmp_path, model)
