"""Sampling: where completions end, what the seed decides, and whose habits are followed."""

import json
import shutil

import numpy as np
import pytest

from fpo_core.backend.policy import Sampling
from tests.backends.support import shaken
from tests.helpers import BACKENDS

PROMPTS = [np.array(ids, np.int32) for ids in ([7, 9, 11], [8], [30, 31, 32, 33, 34, 35])]


@pytest.fixture
def policy(backend, make_policy):
    return make_policy(backend, sae=None)


def test_a_stop_token_ends_a_completion_and_is_part_of_it(policy):
    stop = tuple(range(20, 40))
    found = policy.generate(PROMPTS * 4, Sampling(max_tokens=12, stop=stop))
    assert len(found) == 12
    ended = [c for c in found if c[-1] in stop]
    assert ended
    for completion in found:
        assert completion.dtype == np.int32
        assert not np.isin(completion[:-1], stop).any()
        assert completion[-1] in stop or len(completion) == 12


def test_without_a_stop_token_every_completion_has_all_its_tokens(policy):
    """Not even the model's own EOS (2) ends it."""
    found = policy.generate(PROMPTS * 8, Sampling(max_tokens=16, temperature=3.0, seed=1))
    assert [len(c) for c in found] == [16] * 24
    assert (np.concatenate(found) == 2).any()


def test_the_seed_decides(policy):
    first = policy.generate(PROMPTS, Sampling(max_tokens=10, seed=3))
    again = policy.generate(PROMPTS, Sampling(max_tokens=10, seed=3))
    other = policy.generate(PROMPTS, Sampling(max_tokens=10, seed=4))
    assert [c.tolist() for c in first] == [c.tolist() for c in again]
    assert [c.tolist() for c in first] != [c.tolist() for c in other]


def test_a_sample_does_not_depend_on_its_batch(policy):
    """It is the seed's, the prompt's and the number's: alone, in any order, in two calls."""
    sampling = Sampling(max_tokens=12, temperature=1.3, top_p=0.9, seed=5, stop=(20, 21))
    together = policy.generate([*PROMPTS, *PROMPTS], sampling)
    assert [c.tolist() for c in together[:3]] != [c.tolist() for c in together[3:]]
    backward = policy.generate([*PROMPTS[::-1], PROMPTS[1]], sampling)
    for found, expected in ((backward[0], 2), (backward[1], 1), (backward[2], 0), (backward[3], 4)):
        assert found.tolist() == together[expected].tolist()
    second = policy.generate(PROMPTS, sampling, numbers=[1, 1, 1])
    assert [c.tolist() for c in second] == [c.tolist() for c in together[3:]]


def test_backends_draw_the_same_samples(make_policy):
    sampling = Sampling(max_tokens=16, temperature=0.9, top_p=0.8, seed=2, stop=(20,))
    found = [make_policy(backend, sae=None).generate(PROMPTS * 4, sampling) for backend in BACKENDS]
    assert [c.tolist() for c in found[0]] == [c.tolist() for c in found[1]]


def test_prompts_in_a_batch_do_not_see_each_other(policy):
    greedy = Sampling(max_tokens=8, temperature=0.0)
    together = policy.generate(PROMPTS, greedy)
    alone = [policy.generate([prompt], greedy)[0] for prompt in PROMPTS]
    assert [c.tolist() for c in together] == [c.tolist() for c in alone]


def test_backends_agree_where_nothing_is_drawn(make_policy):
    """And neither follows the model's own generation_config.json (repetition penalty, top_k)."""
    found = [
        make_policy(backend, sae=None).generate(PROMPTS, Sampling(10, temperature=0.0))
        for backend in BACKENDS
    ]
    assert [c.tolist() for c in found[0]] == [c.tolist() for c in found[1]]


def test_samples_have_the_models_own_frequencies(backend, make_policy, policy):
    """The first token of 600 samples against the softmax: temperature 1, no top_k."""
    import torch
    from transformers import AutoModelForCausalLM

    found = policy.generate(PROMPTS[:1] * 600, Sampling(max_tokens=1, seed=5))
    counts = np.bincount(np.concatenate(found), minlength=64)
    folder = policy_folder(make_policy)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        p = model(torch.from_numpy(PROMPTS[0]).long()[None]).logits[0, -1].softmax(-1).numpy()
    expected = 600 * p
    spread = np.sqrt(600 * p * (1 - p))
    assert (np.abs(counts - expected) < 5 * spread + 1).all()


def policy_folder(make_policy):
    """The model folder that the fixture opens by default."""
    return make_policy.__defaults__[0]


def test_samples_come_from_the_trained_weights_and_leave_them_alone(policy):
    greedy = Sampling(max_tokens=12, temperature=0.0)
    before = [c.tolist() for c in policy.generate(PROMPTS, greedy)]
    weights = shaken(policy.trained(), 0.5)
    policy.load_trained(weights)
    assert [c.tolist() for c in policy.generate(PROMPTS, greedy)] != before
    kept = policy.trained()
    assert all((kept[name] == weights[name]).all() for name in weights)


HABITS = [
    {"min_new_tokens": 9},
    {"num_beams": 3},
    {"return_dict_in_generate": True},
    {"forced_eos_token_id": 2},
    {"begin_suppress_tokens": list(range(4, 60))},
]


@pytest.mark.parametrize("habits", HABITS, ids=lambda habits: next(iter(habits)))
def test_no_habit_of_the_model_enters(make_policy, tiny, tmp_path, habits):
    """transformers fills what a call leaves open from generation_config.json."""
    folder = shutil.copytree(tiny, tmp_path / "model")
    (folder / "generation_config.json").write_text(json.dumps(habits))
    sampling = Sampling(max_tokens=8, seed=1, stop=tuple(range(20, 40)))
    found, expected = (
        make_policy("torch", place, sae=None).generate(PROMPTS, sampling)
        for place in (folder, tiny)
    )
    assert [c.tolist() for c in found] == [c.tolist() for c in expected]


def test_a_prefix_is_kept_where_the_model_asks_for_no_cache(backend, make_policy, tiny, tmp_path):
    """`use_cache` is false in what was saved after training with checkpoints."""
    folder = shutil.copytree(tiny, tmp_path / "model")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"use_cache": False}))
    (folder / "generation_config.json").unlink()
    found = []
    for place in (folder, tiny):
        policy = make_policy(backend, place, sae=None, fine_tune_type="prefix", virtual_tokens=4)
        policy.load_trained(shaken(policy.trained(), 0.5))
        found.append(policy.generate(PROMPTS, Sampling(max_tokens=8, temperature=0.0)))
    assert [c.tolist() for c in found[0]] == [c.tolist() for c in found[1]]
