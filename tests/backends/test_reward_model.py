"""Reward models: a causal body with a value head, one folder for both backends."""

import numpy as np
import pytest

from fpo.backends import backend_module
from fpo.world import assets
from fpo_core.config import ModelConfig
from fpo_core.data.tokenizer import load_tokenizer
from fpo_core.errors import JudgeError, ModelError
from fpo_core.judges.reward_model import RewardModelJudge, check_reward_model
from fpo_core.models.folder import ModelFolder

PROMPTS = ["Tell me about the red lamp."] * 3
ANSWERS = ["It is fine.", "The lamp leaks for hours, dear friend, and it looks shabby.", "No."]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The world's model with a random value head, as transformers saves it."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("reward")
    model = AutoModelForSequenceClassification.from_pretrained(assets().model, num_labels=1)
    model.save_pretrained(path)
    AutoTokenizer.from_pretrained(assets().model).save_pretrained(path)
    return path


def judge_of(folder, backend, **options):
    package = backend_module(backend, "reward_model")
    config = ModelConfig(model=str(folder), backend=backend)
    model = getattr(package, f"{backend.title()}RewardModel")(folder, config)
    return RewardModelJudge(model, load_tokenizer(str(folder)), "reward", **options)


@pytest.fixture(scope="session")
def by_hand(folder):
    """The head's product with the last state of each conversation, run by itself."""
    import torch
    from safetensors.numpy import load_file
    from transformers import AutoModel

    body, head = AutoModel.from_pretrained(folder), load_file(folder / "model.safetensors")
    tokenizer = load_tokenizer(str(folder))
    values = []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            state = body(ids["input_ids"]).last_hidden_state[0, -1].numpy()
        values.append(float(head["score.weight"][0] @ state))
    return values


@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_rewards_are_the_heads_product_with_the_last_state(backend, folder, by_hand):
    judge = judge_of(folder, backend)
    scores = judge.score(PROMPTS, ANSWERS)
    np.testing.assert_allclose(scores, by_hand, atol=1e-4)
    expected = 1 / (1 + np.exp(by_hand[1] - by_hand[0]))
    assert judge.prefer(PROMPTS[:1], ANSWERS[:1], ANSWERS[1:2])[0] == pytest.approx(
        expected, abs=1e-4
    )
    alone = judge_of(folder, backend, tokens_per_batch=1).score(PROMPTS, ANSWERS)
    np.testing.assert_allclose(alone, by_hand, atol=1e-4)


@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_what_is_too_long_is_refused(backend, folder):
    judge = judge_of(folder, backend)
    judge._model.width = 5
    with pytest.raises(JudgeError, match="and reward reads 5"):
        judge.score(PROMPTS, ANSWERS)


def test_a_model_without_a_value_head_is_refused(folder):
    check_reward_model(ModelFolder(folder, "folder"))
    with pytest.raises(ModelError, match="LlamaForCausalLM"):
        check_reward_model(ModelFolder(assets().model, "world"))
