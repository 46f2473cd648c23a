"""From parameters in training to a canonical autoencoder that reads activations as they are.

With z = (x − c) s:  W = s W_encᵀ,  b = b_enc − c W,  W_dec' = W_dec / s,  b_dec' = b_dec / s + c.
Pre-activations stay the same numbers, so a threshold on them is one before folding and after.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fpo_core.io.reader import FLOAT_CODES
from fpo_core.io.writer import float_tensor
from fpo_core.sae.metadata import SaeMeta
from fpo_core.sae.sae import Sae
from fpo_core.sae.writer import write_sae
from fpo_core.sae_training.kernels import Kernels
from fpo_core.sae_training.learner import Scaling
from fpo_core.sae_training.recipe import Recipe

_SPREAD = 4
"""Times k values per token that a chunk hands to the search for the threshold."""


def folded(
    parameters: Mapping[str, np.ndarray],
    scaling: Scaling,
    recipe: Recipe,
    meta: SaeMeta,
    threshold: float,
) -> Sae:
    """The canonical autoencoder; `meta` says where it reads. Products in float64."""
    W = parameters["W_enc"].T.astype(np.float64) * scaling.factor
    bias = parameters["b_enc"] - scaling.centre @ W
    arrays = {
        "W_enc": W,
        "b_enc": bias,
        "W_dec": parameters["W_dec"].astype(np.float64) / scaling.factor,
        "b_dec": parameters["b_dec"] / np.float64(scaling.factor) + scaling.centre,
    }
    if recipe.architecture != "topk":
        arrays["threshold"] = np.full(recipe.d_sae, threshold)
    fields: dict[str, Any] = {name: array.astype(np.float32) for name, array in arrays.items()}
    fields |= {field.name: getattr(meta, field.name) for field in dataclasses.fields(SaeMeta)}
    return Sae(**fields)


def threshold_of(kernels: Kernels, sae: Sae, k: int, pieces: Iterable[np.ndarray]) -> float:
    """The threshold at which k features are active per token on average of held-out tokens.

    `pieces` are activations (n, d_in). Pre-activations are of the folded weights, in float32.
    """
    W, b = kernels.array(np.ascontiguousarray(sae.W_enc.T)), kernels.array(sae.b_enc)
    values, tokens = [np.zeros(0, np.float32)], 0
    for piece in pieces:
        pre = kernels.array(piece.astype(np.float32)) @ W.T + b
        codes = kernels.choose_batch(pre, min(_SPREAD * k * len(piece), len(piece) * sae.d_sae))
        values.append(kernels.numpy(codes.values))
        tokens += len(piece)
    ranked = np.sort(np.concatenate(values))
    at = len(ranked) - k * tokens
    # Strict: the k-th largest itself must still be above the threshold.
    return float(np.nextafter(ranked[at], np.float32(-np.inf))) if 0 <= at < len(ranked) else 0.0


def write_folded(path: Path, sae: Sae, dtype: str) -> str:
    """Write a canonical file, matrices in `dtype`; the SHA-256 of its payload."""
    tensors = [
        float_tensor(
            name,
            FLOAT_CODES[dtype] if name.startswith("W_") else "F32",
            value.shape,
            lambda value=value: [value],
        )
        for name, value in sae.arrays().items()
    ]
    return write_sae(path, sae, tensors)
