"""transformers and mlx-lm agree in every family: log-probabilities, features, LoRA gradients."""

import dataclasses
import importlib

import numpy as np
import pytest

from tests.backends.families import APART, FAMILIES, OTHERS, ROUNDED, write_family
from tests.backends.support import OBJECTIVE, difference, gradients, reference_of, shaken
from tests.helpers import BACKENDS, random_batch

EXACT = 1e-4
HOOK = "blocks.2.hook_resid_post"
EVERY = FAMILIES | ROUNDED | OTHERS


@pytest.fixture(scope="module")
def compared(make_policy, tmp_path_factory):
    """Of a family, made once: the batch and each backend's scores and gradient."""
    made = {}

    def get(name, **changes):
        key = (name, *changes.items())
        if key not in made:
            folder = write_family(name, tmp_path_factory.mktemp(name), **changes)
            made[key] = folder, *(step(make_policy, backend, folder) for backend in BACKENDS)
        return made[key]

    return get


def step(make_policy, backend, folder):
    """Scores of the start, and the gradient of adapters that have moved, constraint included."""
    policy, batch = make_policy(backend, folder, hook=HOOK, rank=4), random_batch(3)
    scores, reference = policy.score(batch), reference_of(policy, batch)
    policy.load_trained(shaken(policy.trained()))
    alone = gradients(policy, [(batch, reference)], dataclasses.replace(OBJECTIVE, alpha=0.0))
    found = gradients(policy, [(batch, reference)])
    assert difference(found, alone) > 0.01, "the constraint has no gradient here"
    return scores, found


def apart(found, expected):
    """Largest difference, relative to the largest value."""
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", EVERY)
def test_log_probabilities_and_features_agree(compared, name):
    _, torch, mlx = compared(name)
    limit = APART.get(name, EXACT)
    assert apart(mlx[0].logps, torch[0].logps) < limit
    assert apart(mlx[0].pooled, torch[0].pooled) < limit


@pytest.mark.parametrize("name", EVERY)
def test_gradients_of_adapters_agree(compared, name):
    _, torch, mlx = compared(name)
    assert difference(mlx[1], torch[1]) < (10 * APART[name] if name in APART else EXACT)
    for weight, expected in torch[1].items():
        assert np.abs(expected).max() > 0, weight


@pytest.mark.parametrize("name", EVERY)
def test_log_probabilities_are_those_of_transformers(compared, name):
    """The libraries' own forward pass, without a policy of ours, of one sequence at a time."""
    torch, transformers = map(importlib.import_module, ("torch", "transformers"))
    folder, found, _ = compared(name)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    batch, expected = random_batch(3), []
    for tokens, prompt, length in zip(
        batch.tokens, batch.prompt_lengths, batch.lengths, strict=True
    ):
        ids = torch.from_numpy(tokens[:length].astype(np.int64))
        with torch.no_grad():
            log_p = model(ids[None]).logits[0].log_softmax(-1).numpy()
        expected.append(sum(log_p[i - 1, tokens[i]] for i in range(prompt, length)))
    assert apart(found[0].logps, np.array(expected)) < EXACT


@pytest.mark.parametrize(
    ("name", "changes"),
    [("gemma3_text", {"hidden_size": 64}), ("gpt_neox_erf", {"hidden_act": "gelu_pytorch_tanh"})],
)
def test_without_the_cause_the_two_that_differ_agree(make_policy, tmp_path, name, changes):
    """√64 needs no rounding; and mlx-lm's GELU is the approximate one."""
    found = []
    for given in ({}, changes):
        folder = tmp_path / str(len(found))
        write_family(name, folder, **given)
        policies = [make_policy(backend, folder, sae=None) for backend in BACKENDS]
        torch, mlx = (policy.score(random_batch(3)).logps for policy in policies)
        found.append(apart(mlx, torch))
    assert found[1] < 2e-6 < found[0] < APART[name], found
