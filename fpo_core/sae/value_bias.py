"""Autoencoders of TransformerLens's z: the heads' outputs without the bias of the values.

TransformerLens moves the values' bias, that of the norm before them included, to the output
projection: z = z_transformers − v with v = b_V + W_V b_ln, since every row of attention sums to 1.
A shift of the input is a shift of the encoder's biases: (z − v) W + b = z W + (b − v W).
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fpo_core.errors import SaeError
from fpo_core.models.folder import ModelFolder
from fpo_core.models.weights import ModelWeights
from fpo_core.sae.sae import Sae

_BLOCK = r"(?:^|\.)(?:h|layers)\.{layer}\."
_VALUES = r"(?:attn|self_attn|attention)\.(c_attn|query_key_value|v_proj|qkv_proj|Wqkv)\.{part}$"
_NORM = r"(?:ln_1|input_layernorm)\.bias$"


def subtract_value_bias(sae: Sae, model: ModelFolder, layer: int) -> Sae:
    """The autoencoder with v folded into its biases, to read a model's own z at a layer.

    Raises SaeError where v cannot be read from the model's weights, or not be folded.
    """
    v = value_bias(ModelWeights.open(model), model.config, layer)
    if v is None:
        return sae
    if sae.input_transform != "none" or v.shape != (sae.d_in,):
        raise SaeError(
            f"the autoencoder was trained on z without the bias of the values, which is {v.shape} "
            f"in {model.name} and cannot be subtracted before {sae.input_transform}, expected "
            f"({sae.d_in},) and no transform: use an autoencoder of another site"
        )
    shift = v @ np.asarray(sae.W_enc, np.float64)
    biases: dict[str, Any] = {"b_enc": sae.b_enc - shift}
    if sae.architecture == "gated":
        biases["b_mag"] = sae.b_mag - shift * np.exp(np.asarray(sae.r_mag, np.float64))
    if sae.has_decoder:
        biases["b_dec"] = sae.b_dec + v
    narrow = {name: value.astype(np.float32) for name, value in biases.items()}
    return dataclasses.replace(sae, **narrow)


def value_bias(weights: ModelWeights, config: Mapping[str, Any], layer: int) -> np.ndarray | None:
    """v = b_V + W_V b_ln of a layer, all heads side by side; None where there is no bias.

    Raises SaeError for a family whose values are not found, and for quantised weights.
    """
    names = [name for file in weights.files for name in weights.names(file)]
    block = _BLOCK.format(layer=layer)
    bias, norm = (_only(names, block + p) for p in (_VALUES.format(part="bias"), _NORM))
    if bias is None and norm is None:
        return None
    matrix = _only(names, block + _VALUES.format(part="weight"))
    kind = next((kind for kind in _SLICES if matrix and f".{kind}." in matrix), None)
    if matrix is None or kind is None or weights.quantised(matrix):
        raise SaeError(
            "the autoencoder was trained on z without the bias of the values, and this model's are "
            "not found or quantised, expected those of GPT-2, GPT-NeoX or Qwen 2: use an "
            "autoencoder of another site, or unquantised weights"
        )
    # (d_in, values) in every family: rows are the norm's outputs.
    values, value_biases = _SLICES[kind](weights.weight(matrix), config), 0.0
    if bias is not None:
        value_biases = _SLICES[kind](weights.weight(bias)[:, None], config)[0]
    through = 0.0 if norm is None else weights.weight(norm).astype(np.float64) @ values
    return _repeated(np.asarray(value_biases + through, np.float64), config)


def _only(names: list[str], pattern: str) -> str | None:
    return next((name for name in names if re.search(pattern, name)), None)


def _conv1d(stored: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """GPT-2's Conv1D holds (in, 3 · heads): queries, keys, values side by side."""
    stored = stored.T if stored.shape[1] == 1 else stored
    return np.split(stored, 3, axis=1)[2]


def _interleaved(stored: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """GPT-NeoX's rows are, head by head, those of its query, its key and its value."""
    heads = stored.reshape(config["num_attention_heads"], 3, -1, stored.shape[1])
    return heads[:, 2].reshape(-1, stored.shape[1]).T


def _plain(stored: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    return stored.T


def _repeated(v: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Of grouped heads, a value serves several queries in a row."""
    heads = config.get("num_attention_heads", config.get("n_head"))
    groups = config.get("num_key_value_heads") or heads
    if not heads or heads == groups:
        return v
    return np.repeat(v.reshape(groups, -1), heads // groups, axis=0).reshape(-1)


_SLICES: dict[str, Callable[[np.ndarray, Mapping[str, Any]], np.ndarray]] = {
    "c_attn": _conv1d,
    "query_key_value": _interleaved,
    "v_proj": _plain,
}
