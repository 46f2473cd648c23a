"""Tiny random models of several families, as transformers writes them and mlx-lm opens them."""

import importlib

from fpo_core.models.folder import flatten_rope

_SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.15,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GROUPED = _SIZES | {"num_key_value_heads": 2}
_GPT2 = {k: _SIZES[k] for k in ("vocab_size", "initializer_range", "bos_token_id", "eos_token_id")}
_ROPE = {"rope_type": "default", "rope_theta": 500.0}
FAMILIES = {
    "llama": ("Llama", _GROUPED | {"rope_parameters": _ROPE, "tie_word_embeddings": False}),
    "mistral": ("Mistral", _GROUPED),
    "qwen2": ("Qwen2", _GROUPED | {"rope_parameters": _ROPE, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3", _GROUPED | {"head_dim": 8, "tie_word_embeddings": True}),
    "gemma2": ("Gemma2", _GROUPED | {"head_dim": 8, "query_pre_attn_scalar": 8}),
    "phi3": ("Phi3", _GROUPED),
    "gpt2": ("GPT2", _GPT2 | {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 128}),
    "gpt_neox": ("GPTNeoX", _SIZES | {"intermediate_size": 128, "hidden_act": "gelu_pytorch_tanh"}),
}
"""transformers' class, and its settings; gpt_neox with the one GELU that mlx-lm has."""
ROUNDED = {
    "gemma3_text": (
        "Gemma3Text",
        _GROUPED | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window_pattern": 2},
    )
}
"""mlx-lm rounds √hidden_size, the scale of its embeddings, to bfloat16."""
OTHERS = {
    "olmo2": ("Olmo2", _GROUPED),
    "gpt_neox_erf": ("GPTNeoX", _SIZES | {"intermediate_size": 128}),
}
"""A further family, and gpt_neox as it is published: with the exact GELU."""
APART = {"gemma3_text": 1e-3, "gpt_neox_erf": 1e-3}
"""How far mlx-lm is from transformers, relative to the largest value, where it rounds."""


def write_family(family, folder, dtype="float32", **changes):
    """Write a model of the family, its config.json completed for mlx-lm."""
    torch, transformers = (importlib.import_module(name) for name in ("torch", "transformers"))
    name, settings = (FAMILIES | ROUNDED | OTHERS)[family]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        getattr(transformers, name + "Config")(**settings | changes)
    )
    with torch.no_grad():  # norms and biases start at 0 or 1, where much goes unnoticed
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(0.1 * torch.randn_like(weight))
    model.to(getattr(torch, dtype))
    # The hub's gpt2 is the body alone, and mlx-lm takes it only so.
    (model.transformer if family == "gpt2" else model).save_pretrained(folder)
    flatten_rope(folder / "config.json")
    return folder


def write_quantised(base, folder, bits=4, mode="affine"):
    """mlx-lm's quantised copy of a model, in groups of 32."""
    utils = importlib.import_module("mlx_lm.utils")
    model, config = utils.load_model(base)
    model, config = utils.quantize_model(model, config, group_size=32, bits=bits, mode=mode)
    folder.mkdir()
    utils.save_model(folder, model)
    utils.save_config(config, folder / "config.json")
    return folder
