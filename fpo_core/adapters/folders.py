"""Adapter folders of any kind; virtual tokens in PEFT's format, which both backends use.

PEFT keeps `prompt_embeddings` alone: of a prompt (n, d), of a prefix (n, 2 · layers · g · head), in
which each row holds the keys and then the values of every block in turn.
"""

from pathlib import Path
from typing import Any

import numpy as np

from fpo_core.adapters.base import write_base
from fpo_core.adapters.config import read_config
from fpo_core.adapters.integrity import check_hashes, with_hashes
from fpo_core.adapters.lora import Adapter, select_blocks
from fpo_core.adapters.reader import load_adapter
from fpo_core.adapters.virtual_tokens import (
    PROMPT,
    SIDES,
    VirtualTokens,
    Weights,
    key_heads,
    prefix_name,
    virtual_shapes,
)
from fpo_core.adapters.writer import CONFIG_FILE, PEFT_FILE, save_adapter
from fpo_core.config import AdapterConfig
from fpo_core.errors import ModelError
from fpo_core.io.atomic import replacing, write_json
from fpo_core.io.reader import open_safetensors
from fpo_core.io.writer import write_arrays
from fpo_core.models.folder import ModelFolder

_TENSOR = "prompt_embeddings"
_TYPES = {"PROMPT_TUNING": "prompt", "PREFIX_TUNING": "prefix"}


def load_any_adapter(folder: Path, model: ModelFolder) -> Adapter | VirtualTokens:
    """The adapter of a folder, LoRA, DoRA, prompt or prefix, for this model.

    Raises ModelError for a damaged folder, for other kinds, or where it is another model's.
    """
    kind = _TYPES.get(str(read_config(folder).get("peft_type")))
    return load_adapter(folder, model.layers) if kind is None else _load(folder, model)


def is_virtual_folder(folder: Path) -> bool:
    """Whether a folder's adapter_config.json is of virtual tokens."""
    return str(read_config(folder).get("peft_type")) in _TYPES


def _load(folder: Path, model: ModelFolder) -> VirtualTokens:
    config = read_config(folder)
    path = folder / PEFT_FILE
    if not path.is_file():
        raise ModelError(f"{folder} holds no {PEFT_FILE}: the adapter is incomplete")
    check_hashes(folder, config, path.name)
    file = open_safetensors(path, lambda text: ModelError(f"{text}: the adapter is damaged"))
    if set(file.entries) != {_TENSOR}:
        raise ModelError(f"{path} holds {sorted(file.entries)[:3]}, expected {_TENSOR} alone")
    stored = np.ascontiguousarray(file.rows(_TENSOR), np.float32)
    if stored.ndim != 2 or not len(stored) or not np.isfinite(stored).all():
        raise ModelError(
            f"{path} holds {_TENSOR} of shape {stored.shape}, expected finite rows, one a virtual "
            "token: the adapter is damaged"
        )
    kind = _TYPES[config["peft_type"]]
    weights = {PROMPT: stored} if kind == "prompt" else _split(stored, model.layers)
    tokens = VirtualTokens(weights, key_heads(model))
    expected = virtual_shapes(tokens.shape(), model)
    found = {name: weight.shape for name, weight in weights.items()}
    if found != expected:
        name = min(n for n in expected if found.get(n) != expected[n])
        raise ModelError(
            f"{path} has {name} of shape {found.get(name)}, expected {expected[name]}: give the "
            "model that the adapter was trained on"
        )
    return tokens


def save_trained(
    folder: Path, weights: Weights, config: AdapterConfig, base_model: str, model: ModelFolder
) -> None:
    """Write trained weights by canonical name as the adapter folder of their kind."""
    if config.virtual:
        tokens = VirtualTokens(weights, key_heads(model))
        save_virtual_tokens(folder, tokens, base_model=base_model, model=model)
    else:
        count = len(select_blocks(model.layers, config.num_layers))
        adapter = Adapter(config.rank, config.scale, config.dropout, count, weights)
        save_adapter(folder, adapter, base_model=base_model, layout=model.layout)
    write_base(folder, model)


def save_virtual_tokens(
    folder: Path, tokens: VirtualTokens, *, base_model: str, model: ModelFolder
) -> None:
    """Write a folder that PEFT opens as PromptTuning or PrefixTuning."""
    kind = tokens.fine_tune_type
    stored = tokens.weights[PROMPT] if kind == "prompt" else _joined(tokens.weights, model.layers)
    hidden = virtual_shapes(tokens.shape(), model)[min(tokens.weights)][1]
    config: dict[str, Any] = {
        "peft_type": next(name for name, value in _TYPES.items() if value == kind),
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "num_virtual_tokens": tokens.count,
        "token_dim": hidden,
        "num_transformer_submodules": 1,
        "num_attention_heads": tokens.heads,
        "num_layers": model.layers,
        "inference_mode": True,
    }
    if kind == "prefix":
        config |= {"encoder_hidden_size": hidden, "prefix_projection": False}
    with replacing(folder / PEFT_FILE) as temporary:
        files = {PEFT_FILE: write_arrays(temporary, {_TENSOR: np.ascontiguousarray(stored)})}
    write_json(folder / CONFIG_FILE, with_hashes(config, files))


def _names(layers: int) -> list[str]:
    return [prefix_name(block, side) for block in range(layers) for side in SIDES]


def _joined(weights: dict[str, np.ndarray], layers: int) -> np.ndarray:
    return np.concatenate([weights[name] for name in _names(layers)], 1)


def _split(stored: np.ndarray, layers: int) -> dict[str, np.ndarray]:
    names = _names(layers)
    if stored.shape[1] % len(names):
        raise ModelError(
            f"{_TENSOR} has {stored.shape[1]} columns, which {layers} blocks cannot share: give "
            "the model that the adapter was trained on"
        )
    return dict(zip(names, np.split(stored, len(names), axis=1), strict=True))
