"""Random models of known shapes, batches of known lengths, and the environment they run in."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from fpo_core.data.batches import Batch, collate
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.sae.sae import Sae


def _sizes(
    vocab: int, hidden: int, inner: int, layers: int, heads: int, kv_heads: int, **others: Any
) -> dict[str, Any]:
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    names += ("num_attention_heads", "num_key_value_heads")
    sizes = (vocab, hidden, inner, layers, heads, kv_heads)
    return dict(zip(names, sizes, strict=True)) | others


_NARROW = {"head_dim": 8, "query_pre_attn_scalar": 8, "attn_logit_softcapping": None}
_WIDE = {"head_dim": 256, "query_pre_attn_scalar": 256}
MODELS = {
    "tiny": ("Llama", _sizes(512, 64, 128, 2, 4, 2, tie_word_embeddings=True)),
    "smollm2-135m": ("Llama", _sizes(49152, 576, 1536, 30, 9, 3, tie_word_embeddings=True)),
    # A quarter as wide, with a quarter of the words: the same shares of blocks and head.
    "smollm2-quarter": ("Llama", _sizes(12288, 144, 384, 30, 9, 3, tie_word_embeddings=True)),
    "gemma-2-2b": ("Gemma2", _sizes(256000, 2304, 9216, 26, 8, 4, **_WIDE)),
    "gemma-2-narrow": ("Gemma2", _sizes(512, 32, 64, 26, 4, 2, **_NARROW)),
}
"""Class prefix and configuration in transformers."""

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""The layers with an adapter, on every side of a comparison."""

PAIRS = {
    "tiny": [(16, 8, 8)] * 2,
    "A": [(256, 128, 128)] * 4,
    "M": [(30, 55, 60), (40, 65, 75), (47, 78, 87), (60, 93, 105)],
    "short": [(4, 128, 128)] * 4,
    "long": [(256, 768, 768)] * 4,
}
"""Tokens of prompt, chosen and rejected. `M` has the totals of short chat pairs: 177, 291, 327."""


def build_model(name: str, folder: Path, dtype: str = "float32", device: str = "cpu") -> Path:
    """The folder of a model of this shape; written, with weights drawn on `device`, if missing."""
    import torch
    import transformers

    place = folder / f"{name}-{dtype}"
    if not (place / "config.json").is_file():
        prefix, settings = MODELS[name]
        torch.manual_seed(0)
        config = getattr(transformers, f"{prefix}Config")(
            bos_token_id=1, eos_token_id=2, pad_token_id=0, **settings
        )
        config.dtype = getattr(torch, dtype)
        with torch.device(device):
            model = transformers.AutoModelForCausalLM.from_config(config)
        model.to(getattr(torch, dtype)).save_pretrained(place)
    return place


def pairs_of(shape: str, vocab: int) -> TokenisedPairs:
    """The pairs of this shape, of random tokens."""
    generator = np.random.default_rng(0)

    def tokens(count: int) -> list[int]:
        return generator.integers(3, vocab, count).tolist()

    return TokenisedPairs.from_lists([tuple(map(tokens, sizes)) for sizes in PAIRS[shape]])


def batch_of(shape: str, vocab: int) -> Batch:
    """The pairs of this shape as one batch, padded no further than its longest row."""
    pairs = pairs_of(shape, vocab)
    return collate(
        pairs,
        range(len(pairs)),
        max(prompt + max(rest) for prompt, *rest in PAIRS[shape]),
    )


def random_sae(d_in: int, d_sae: int, seed: int = 0, *, architecture: str = "relu") -> Sae:
    """A relu, jumprelu or topk autoencoder with random weights."""
    generator = np.random.default_rng(seed)
    weights = generator.standard_normal((d_in, d_sae), np.float32) / np.float32(d_in**0.5)
    zeros = np.zeros(d_sae, np.float32)
    specific: dict[str, dict[str, Any]] = {
        "relu": {},
        "jumprelu": {"threshold": zeros + np.float32(0.01)},
        "topk": {"k": max(1, d_sae // 64)},
    }
    common: dict[str, Any] = {"d_in": d_in, "d_sae": d_sae, "W_enc": weights, "b_enc": zeros}
    return Sae(architecture=architecture, **common, **specific[architecture])


ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "34359738368",
    "MALLOC_TOP_PAD_": "268435456",
}
"""glibc keeps freed memory: otherwise page faults slow whichever side allocates more."""


def environment() -> dict[str, str]:
    """The environment of a measured process, the same for every side."""
    return {**os.environ, **ALLOCATOR, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def mlx_on_cpu() -> Any:
    """mlx.core on the CPU; on Linux with torch's BLAS, as MLX's wheel has a reference BLAS."""
    from tests.fast_blas import load_fast_blas

    load_fast_blas()
    import mlx.core as mx

    mx.set_default_device(mx.cpu)
    return mx
