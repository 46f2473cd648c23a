"""The fast step gives the plain step's scores and gradients, whatever the family and setting."""

import dataclasses

import numpy as np
import pytest
import torch

from fpo_core.config import StepConfig
from fpo_core.data.batches import collate
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.evaluation.texts import sequences
from fpo_core.loss.token_scores import token_bounds
from fpo_core.sae.hook import SITES, Hook
from tests.backends.families import FAMILIES, ROUNDED, write_family
from tests.backends.support import (
    HIDDEN,
    OBJECTIVE,
    difference,
    gradients,
    part,
    part_of_reference,
    reference_of,
    shaken,
)
from tests.helpers import random_batch, random_sae

HOOK = "blocks.0.hook_resid_post"
TIGHT = 1e-5
SMALL = {"num_hidden_layers": 2, "initializer_range": 0.25}
WINDOW = {"sliding_window": 6}
"""Shorter than the sequences."""
CHANGES = {
    "gpt2": {"n_layer": 2, "initializer_range": 0.25},
    "mistral": SMALL | WINDOW,
    "phi3": SMALL | {"sliding_window": None},
    "gemma2": SMALL | WINDOW | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    "gemma3_text": SMALL | WINDOW | {"sliding_window_pattern": 2},
}
"""How a family differs from its like in other tests: few layers, windows and caps that matter."""


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """The folder of a family's tiny model, made once."""
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = write_family(name, folder, **CHANGES.get(name, SMALL))
        return made[name]

    return get


def both(make_policy, backend, batch, folder=None, objective=OBJECTIVE, **options):
    """Scores and gradient of the plain step and of the fast one."""
    found = []
    start = weights = reference = None
    for plain in (True, False):
        where = {} if folder is None else {"folder": folder}
        step = StepConfig(plain=plain, logits_budget=1)
        policy = make_policy(backend, **where, **options, step=step)
        assert policy.info.fallback is None
        if weights is None:
            reference = reference_of(policy, batch)
            start = policy.trained()
            weights = shaken(start)
        policy.set_reference(start)
        policy.load_trained(weights)
        scores = policy.score(batch, reference, objective)
        found.append((scores, gradients(policy, [(batch, reference)], objective)))
    return found


def check(plain, fast):
    for field in dataclasses.fields(plain[0]):
        expected = getattr(plain[0], field.name)
        if expected is not None:
            value = getattr(fast[0], field.name)
            np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5, err_msg=field.name)
    assert difference(fast[1], plain[1]) < TIGHT


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("name", FAMILIES | ROUNDED)
def test_every_family(backend, make_policy, family, name, checkpoint):
    check(
        *both(
            make_policy,
            backend,
            random_batch(3),
            family(name),
            hook=HOOK,
            grad_checkpoint=checkpoint,
        )
    )


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
WIDER = {
    "gpt2": {"n_head": 2},
    "qwen3": {"head_dim": 16},
    "gemma2": {"head_dim": 16},
    "gemma3_text": {"head_dim": 16},
}
"""Heads as wide as FlexAttention wants them, 16, elsewhere by having two of them."""


def wider(name, folder):
    """A family's tiny model with heads that a GPU's kernels take."""
    change = WIDER.get(name, {"num_attention_heads": 2})
    return write_family(name, folder, **CHANGES.get(name, SMALL) | change)


@needs_cuda
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("name", FAMILIES | ROUNDED)
def test_every_family_on_a_gpu(make_policy, tmp_path, name, checkpoint):
    options = {"hook": HOOK, "grad_checkpoint": checkpoint, "device": "cuda"}
    check(*both(make_policy, "torch", random_batch(3), wider(name, tmp_path), **options))


@needs_cuda
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_bfloat16_on_a_gpu(make_policy, tmp_path, name):
    """No further from float32 than the plain step is, but for chance."""
    folder, batch = wider(name, tmp_path), random_batch(3)
    options = {"hook": HOOK, "device": "cuda", "objective": dataclasses.replace(OBJECTIVE, alpha=0)}
    exact, _ = both(make_policy, "torch", batch, folder, **options)
    plain, fast = both(make_policy, "torch", batch, folder, dtype="bfloat16", **options)
    assert difference(fast[1], exact[1]) < max(2 * difference(plain[1], exact[1]), 0.02)


@pytest.mark.parametrize("transform", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("kind", ["relu", "jumprelu", "topk", "abstopk", "gated"])
def test_every_activation_and_input_transform(backend, make_policy, kind, transform):
    sae = dataclasses.replace(random_sae(HIDDEN, kind=kind), input_transform=transform)
    check(*both(make_policy, backend, random_batch(3), sae=sae))


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize(
    "change",
    [
        {"alpha": 0.0},
        {"stop_gradient": False},
        {"normalize_d": True, "k": 60},
        {"straight_through": True},
        {"objective": "tdpo2"},
        {"objective": "dpo", "alpha": None},
    ],
)
def test_every_kind_of_training_and_objective(backend, make_policy, kind, change, checkpoint):
    options = {"fine_tune_type": kind, "grad_checkpoint": checkpoint}
    objective = dataclasses.replace(OBJECTIVE, **change)
    check(*both(make_policy, backend, random_batch(3), objective=objective, **options))


@pytest.mark.parametrize(
    ("name", "kind"), [("gemma2", "full"), ("gemma2", "lora"), ("qwen2", "full"), ("gpt2", "lora")]
)
def test_a_tied_head(backend, make_policy, family, name, kind):
    """With full training the head's gradient adds to the embedding's."""
    folder = family(name)
    check(*both(make_policy, backend, random_batch(3), folder, hook=HOOK, fine_tune_type=kind))


@pytest.mark.parametrize("site", SITES)
def test_every_site(backend, make_policy, site):
    hook = str(Hook(1, site))
    check(*both(make_policy, backend, random_batch(3), hook=hook, grad_checkpoint=True))


def test_prompts_that_are_not_shared(backend, make_policy):
    """Whatever the batch says of prompts: where tokens differ, each side runs its own."""
    batch = random_batch(3)
    tokens = batch.tokens.copy()
    tokens[0, 1] = tokens[0, 1] % 60 + 4
    check(*both(make_policy, backend, dataclasses.replace(batch, tokens=tokens)))


PAIRS_OF_A_PROMPT = [
    *(("a", [20, 21, 22], worse) for worse in ([23], [24, 25, 26, 27], [28, 29])),
    *(("b", better, [31, 32, 33]) for better in ([34, 35], [36])),
    ("c", [37, 38], [39, 40]),
    ("a", [23], [28, 29]),
]
"""Prompts of four, two and one pair in disorder; completions recur, on the other side too."""


def several_pairs_of_a_prompt():
    prompts = {"a": [5, 6, 7, 8, 9], "b": [10], "c": [11, 12, 13]}
    lists = [(prompts[name], chosen, rejected) for name, chosen, rejected in PAIRS_OF_A_PROMPT]
    pairs = TokenisedPairs.from_lists(lists)
    return collate(pairs, [3, 0, 1, 5, 4, 6, 2])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("llama", {}),
        ("gemma2", {"straight_through": True}),
        ("gpt2", {"stop_gradient": False}),
        ("mistral", {"objective": "tdpo2"}),
    ],
)
def test_several_pairs_of_a_prompt(backend, make_policy, family, name, change):
    batch, objective = several_pairs_of_a_prompt(), dataclasses.replace(OBJECTIVE, **change)
    check(*both(make_policy, backend, batch, family(name), objective, hook=HOOK))


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("sae", ["relu", "topk"])
def test_a_batch_scores_as_its_pairs_do_singly(backend, make_policy, kind, sae):
    """One run of a prompt with all its completions gives the sum of the pairs' gradients."""
    batch = several_pairs_of_a_prompt()
    policy = make_policy(backend, fine_tune_type=kind, sae=random_sae(HIDDEN, kind=sae))
    reference = reference_of(policy, batch)
    policy.load_trained(shaken(policy.trained()))
    singly = [
        (part(batch, [i]), part_of_reference(reference, batch, [i])) for i in range(batch.pairs)
    ]
    together, apart = gradients(policy, [(batch, reference)]), gradients(policy, singly)
    assert difference(together, apart) < TIGHT
    tokens = policy.token_scores(batch)
    expected = [policy.token_scores(alone) for alone, _ in singly]
    halves = [
        [
            np.split(x.logps, token_bounds(b)[1:-1])[side]
            for x, (b, _) in zip(expected, singly, strict=True)
        ]
        for side in (0, 1)
    ]
    np.testing.assert_allclose(tokens.logps, np.concatenate(halves[0] + halves[1]), rtol=1e-5)


def test_prompts_of_one_token_and_completions_of_one(backend, make_policy):
    lists = [([7], [8], [9, 10, 11]), ([5, 6, 7, 8], [30] * 9, [31])]
    check(*both(make_policy, backend, collate(TokenisedPairs.from_lists(lists), [0, 1])))


def test_sequences_that_are_no_pairs(backend, make_policy):
    batch = sequences([[5, 6, 7], [8, 9, 10, 11, 12], [13, 14]], [0, 2, 1])
    plain, fast = (make_policy(backend, step=StepConfig(plain=p)) for p in (True, False))
    np.testing.assert_allclose(fast.score(batch).logps, plain.score(batch).logps, rtol=1e-5)


def test_kl_and_entropy(backend, make_policy):
    batch = random_batch(3)
    found = []
    for plain in (True, False):
        policy = make_policy(
            backend, fine_tune_type="full", step=StepConfig(plain=plain, logits_budget=1)
        )
        start = policy.trained()
        policy.set_reference(start)
        policy.load_trained(shaken(start))
        found.append(policy.score(batch, kl=True, entropy=True))
    assert (found[0].kl > 1e-3).all()
    for name in ("kl", "entropy", "logps"):
        np.testing.assert_allclose(
            getattr(found[1], name), getattr(found[0], name), rtol=1e-5, atol=1e-5
        )
