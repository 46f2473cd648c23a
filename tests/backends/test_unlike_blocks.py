"""Families whose blocks differ from each other, or from what most families do."""

import sys

import pytest

from fpo_core.config import AdapterConfig, ModelConfig, ObjectiveConfig
from fpo_core.data.batches import collate
from fpo_core.errors import ModelError
from fpo_core.models.folder import ModelFolder
from tests.backends import family_matrix as matrix
from tests.backends.families import _GROUPED, _SIZES
from tests.backends.support import gradients, open_policy, reference_of

_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
_LINEAR_ATTENTION = {
    "head_dim": 8,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_NEO = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_layers": 4,
    "num_heads": 4,
    "attention_types": [[["global", "local"], 2]],
    "max_position_embeddings": 128,
}
_LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
_EXPERTS = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
_J = {"n_embd": 32, "n_layer": 4, "n_head": 4, "rotary_dim": 4, "n_positions": 128}
FAMILIES = {
    "qwen3_5_text": ("Qwen3_5Text", _GROUPED | _ROPE | _LINEAR_ATTENTION),
    "deepseek_v3": ("DeepseekV3", _SIZES | _ROPE | _LATENT | _EXPERTS),
    "gptj": ("GPTJ", _J | {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2}),
    "gpt_neo": ("GPTNeo", _NEO | {"bos_token_id": 1, "eos_token_id": 2}),
    "olmo": ("Olmo", _GROUPED | _ROPE),
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    def write(family):
        monkeypatch.setitem(matrix.FAMILIES, family, FAMILIES[family])
        return matrix.write(family, tmp_path / "model")

    return write


def opened(backend, folder, *, grad_checkpoint=False, **adapter):
    config = ModelConfig(model=str(folder), device="cpu", dtype="float32")
    adapter = AdapterConfig(rank=2, **adapter)
    return open_policy(backend, folder, config, adapter, None, grad_checkpoint=grad_checkpoint)


def modules_by_block(policy):
    names = [name.rpartition(".")[0].split(".", 1) for name in policy.trained()]
    return {number: {name for n, name in names if n == number} for number, _ in names}


def test_every_block_of_a_hybrid_is_adapted_by_its_own_layers(write):
    """Three blocks of linear attention to one of full attention, in Qwen 3.5."""
    folder = write("qwen3_5_text")
    found = modules_by_block(opened("torch", folder))
    assert "linear_attn.out_proj" in found["0"]
    assert {f"self_attn.{p}_proj" for p in "qkvo"} < found["3"]
    only = modules_by_block(opened("torch", folder, target_modules=("q_proj",)))
    assert only == {"3": {"self_attn.q_proj"}}


def test_a_dense_block_before_those_of_experts(write):
    found = modules_by_block(policy := opened("mlx", write("deepseek_v3")))
    assert "mlp.down_proj" in found["0"]
    assert "mlp.shared_experts.down_proj" in found["3"]
    assert "experts and routers stay frozen" in str(policy.info.frozen)


def test_peft_adapting_other_modules_than_asked_for_is_refused(write):
    """Of DeepSeek it takes the first block's gate_proj for those of all experts."""
    folder = write("deepseek_v3")
    with pytest.raises(ModelError, match="PEFT does not adapt this DeepseekV3ForCausalLM as asked"):
        opened("torch", folder)
    assert modules_by_block(opened("torch", folder, target_modules=("o_proj",)))


def test_a_block_may_get_its_input_by_name(write):
    """mlx-lm's GPT-J calls `block(inputs=…)`, also under checkpoints."""
    folder, data = write("gptj"), matrix.pairs(matrix.SHORT)
    batch = collate(data, range(len(data)))
    policy = opened("mlx", folder, grad_checkpoint=True)
    assert gradients(
        policy, [(batch, reference_of(policy, batch))], ObjectiveConfig(objective="dpo-norm")
    )


def test_the_blocks_of_gpt_neo_are_counted(write):
    assert ModelFolder(write("gpt_neo"), "neo").layers == 4


def test_a_family_that_wants_a_package_does_not_end_the_process(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "hf_olmo", None)
    with pytest.raises(ModelError, match="a package that is not installed"):
        opened("mlx", write("olmo"))
