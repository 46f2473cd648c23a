"""A Llama in a GGUF file as a folder for transformers and mlx-lm, its weights dequantised.

GGUF keeps the rows of the query and key projections in another order, since llama.cpp rotates
neighbouring components of a head where transformers and mlx-lm rotate the two halves.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from fpo_core.errors import ModelError
from fpo_core.models.folder import flatten_rope

_MODULES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_CONTROL = 3
"""GGUF's type of a token such as <|im_end|>, which no text becomes."""


def convert_gguf(path: Path, folder: Path) -> None:
    """Write weights (float16), configuration and tokenizer of the GGUF file to `folder`.

    Raises ModelError where the package gguf is missing or the file is of another architecture.
    """
    try:
        from gguf import GGUFReader
    except ImportError:
        raise ModelError(
            "reading a GGUF file needs the package gguf: pip install 'fpo-mlx[gguf]'"
        ) from None
    reader = GGUFReader(path)
    said = {name: field.contents() for name, field in reader.fields.items()}
    if (said["general.architecture"], said["tokenizer.ggml.pre"]) != ("llama", "smollm"):
        raise ModelError(f"{path} holds no SmolLM: expected architecture llama, tokenizer smollm")
    folder.mkdir(parents=True, exist_ok=True)
    _save_tokenizer(said, folder)
    _save_config(said, folder, tied=all(t.name != "output.weight" for t in reader.tensors))
    _save_weights(reader.tensors, said, folder)


def halves_from_neighbours(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key projection, (heads · d, n), from llama.cpp's order to transformers'.

    Within a head, rows 0, 2, 4, … become the first half and rows 1, 3, 5, … the second.
    """
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows, columns)


def module_of(name: str) -> str:
    """The name in transformers' Llama of GGUF's tensor `name`; ModelError for an unknown one."""
    found = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if found and found[2] in _MODULES:
        return f"model.layers.{found[1]}.{_MODULES[found[2]]}.weight"
    stem = name.removesuffix(".weight")
    if stem not in _OUTSIDE:
        raise ModelError(f"the GGUF file has a tensor {name}, expected those of a Llama")
    return f"{_OUTSIDE[stem]}.weight"


def _save_weights(tensors: Any, said: dict[str, Any], folder: Path) -> None:
    from gguf.quants import dequantize
    from safetensors.numpy import save_file

    heads = {
        "attn_q": said["llama.attention.head_count"],
        "attn_k": said["llama.attention.head_count_kv"],
    }
    weights = {}
    for tensor in tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float16)
        kind = tensor.name.split(".")[-2]
        if kind in heads:
            values = halves_from_neighbours(values, heads[kind])
        weights[module_of(tensor.name)] = values
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _save_config(said: dict[str, Any], folder: Path, *, tied: bool) -> None:
    from transformers import LlamaConfig

    LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=said["llama.vocab_size"],
        hidden_size=said["llama.embedding_length"],
        intermediate_size=said["llama.feed_forward_length"],
        num_hidden_layers=said["llama.block_count"],
        num_attention_heads=said["llama.attention.head_count"],
        num_key_value_heads=said["llama.attention.head_count_kv"],
        max_position_embeddings=said["llama.context_length"],
        rms_norm_eps=said["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": said["llama.rope.freq_base"]},
        tie_word_embeddings=tied,
        bos_token_id=said["tokenizer.ggml.bos_token_id"],
        eos_token_id=said["tokenizer.ggml.eos_token_id"],
        pad_token_id=said["tokenizer.ggml.padding_token_id"],
        dtype="float16",
    ).save_pretrained(folder)
    flatten_rope(folder / "config.json")


def _save_tokenizer(said: dict[str, Any], folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = said["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in said["tokenizer.ggml.merges"]]
    ids = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(tokens, said["tokenizer.ggml.token_type"], strict=True)
    control = [token for token, kind in kinds if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=tokens[said["tokenizer.ggml.bos_token_id"]],
        eos_token=tokens[said["tokenizer.ggml.eos_token_id"]],
        unk_token=tokens[said["tokenizer.ggml.unknown_token_id"]],
        pad_token=tokens[said["tokenizer.ggml.padding_token_id"]],
        model_max_length=said["llama.context_length"],
        clean_up_tokenization_spaces=False,
        chat_template=said["tokenizer.chat_template"],
    ).save_pretrained(folder)
