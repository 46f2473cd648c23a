"""Token ids and positions beyond a model's tables: refused before a pass, on both backends."""

import numpy as np
import pytest

from fpo.backends import build_reader
from fpo_core.backend.policy import Sampling
from fpo_core.config import ModelConfig, StepConfig
from fpo_core.data.batches import collate
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.errors import DataError, ModelError
from fpo_core.loss.dense import ReferenceBatch
from fpo_core.models.bounds import Bounds
from fpo_core.models.folder import ModelFolder
from fpo_core.sae.hook import Hook
from tests.backends import family_matrix as matrix
from tests.backends.support import OBJECTIVE
from tests.helpers import random_batch

VOCABULARY = 64


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A model with a table of 40 positions, which the bucket of a 35-token pair is wider than."""
    return matrix.write("gpt2", tmp_path_factory.mktemp("gpt2") / "model", n_positions=36)


@pytest.fixture(params=[StepConfig(), StepConfig(plain=True)], ids=["packed", "plain"])
def policy(request, backend, gpt2):
    return matrix.open_model(backend, gpt2, request.param)


def pair_with(token):
    return TokenisedPairs.from_lists([([5, 6], [7, 8], [9, 10]), ([5, 6], [7, token], [9, 10])])


@pytest.mark.parametrize("token", [VOCABULARY, 10**6, -1])
def test_a_token_without_an_embedding_is_refused_by_every_pass(policy, token):
    batch = collate(pair_with(token), [0, 1])
    reference = ReferenceBatch(np.zeros(4, np.float32), None, None)
    message = rf"holds the token id {token}, but the model has embeddings for {VOCABULARY} tokens"
    with pytest.raises(DataError, match=f"pairs 0, 1 {message}"):
        policy.score(batch)
    with pytest.raises(DataError, match=message):
        policy.accumulate(batch, reference, OBJECTIVE, 1.0)
    with pytest.raises(DataError, match=message):
        policy.logits(batch.tokens)
    with pytest.raises(DataError, match=f"the prompt {message}"):
        policy.generate([np.array([5, token])], Sampling(max_tokens=2))


def test_the_last_token_has_an_embedding(policy):
    assert np.isfinite(policy.score(collate(pair_with(VOCABULARY - 1), [0, 1])).logps).all()


def test_a_reader_refuses_it_too(backend, gpt2):
    config = ModelConfig(model=str(gpt2), device="cpu")
    reader = build_reader(backend, gpt2, config, [Hook.parse("blocks.1.hook_resid_post")])
    with pytest.raises(DataError, match="token id 64"):
        reader.read(np.array([[3, VOCABULARY]]))


def test_the_whole_data_names_row_token_and_size(gpt2):
    class Tokenizer:
        def convert_ids_to_tokens(self, ids):
            return [f"<|{i}|>" for i in ids]

    bounds = Bounds.of(ModelFolder(gpt2, "gpt2"), ModelConfig(model=str(gpt2)))
    bounds.check_pairs(pair_with(VOCABULARY - 1))
    with pytest.raises(DataError) as caught:
        bounds.check_pairs(pair_with(VOCABULARY), Tokenizer())
    assert str(caught.value) == (
        "row 2 holds the token id 64 ('<|64|>'), but the model has embeddings for 64 tokens, 0 to "
        "63: take the model's own tokenizer, or resize the model's embeddings and save it"
    )
    bounds.check_pairs(pair_with(VOCABULARY)[:1])  # not among these pairs


def test_positions_are_bounded_too(policy, gpt2):
    """A pair that fits is scored though its padded batch would not fit."""
    data = matrix.pairs((14, 22))  # 36 tokens, in a bucket of 64
    assert matrix.gap(policy, data, matrix.expected_logps(gpt2, data)) < 1e-4
    message = "but the model has position embeddings for 36: set max_seq_length to at most 36"
    longer = matrix.pairs((14, 23))
    with pytest.raises(ModelError, match=f"37 tokens, {message}"):
        policy.score(collate(longer, [0, 1]))
    bounds = Bounds.of(ModelFolder(gpt2, "gpt2"), ModelConfig(model=str(gpt2)))
    with pytest.raises(ModelError, match=f"row 1 has 37 tokens, {message}"):
        bounds.check_pairs(longer)


def test_a_completion_ends_where_the_positions_do(policy):
    prompts = [np.arange(30, dtype=np.int32), np.arange(4, dtype=np.int32)]
    assert [len(c) for c in policy.generate(prompts, Sampling(max_tokens=20))] == [6, 20]
    with pytest.raises(ModelError, match="the prompt has 37 tokens"):
        policy.generate([np.arange(37)], Sampling(max_tokens=2))


def test_a_family_that_transformers_does_not_know_is_bounded_by_its_config(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "of mlx-lm alone", "vocab_size": 10}')
    bounds = Bounds.of(ModelFolder(tmp_path, "m"), ModelConfig(model=str(tmp_path)))
    assert bounds == Bounds(10, None)
    with pytest.raises(DataError, match="token id"):
        bounds.check_batch(random_batch(2))


def test_a_long_prompt_leaves_the_completions_of_others_their_length(policy):
    long, short = np.full(36 - 2, 5, np.int32), np.array([7, 9], np.int32)
    heard = []
    found = policy.generate([long, short, long], Sampling(max_tokens=6), heard.append)
    alone = policy.generate([short], Sampling(max_tokens=6))
    assert [len(c) for c in found] == [2, 6, 2]
    assert found[1].tolist() == alone[0].tolist()
    for place, completion in enumerate(found):
        assert [tokens[place] for tokens in heard if place in tokens] == completion.tolist()


def test_a_prompt_that_leaves_no_room_is_refused_in_a_sentence(policy):
    with pytest.raises(ModelError, match="leaves none for a completion: shorten it"):
        policy.generate([np.full(36, 5, np.int32)], Sampling(max_tokens=6))
