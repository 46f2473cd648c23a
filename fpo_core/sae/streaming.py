"""Pooled features without a (tokens, d_sae) array: forward and backward of the feature term.

Forward encodes a chunk of tokens at a time and accumulates c̄. D's gradient with respect to c̄ is
zero outside I_k, so backward encodes again with the columns of I_k alone.
"""

from fpo_core.arrays.ops import Array, Ops
from fpo_core.sae.activations import mask_features, transform_input
from fpo_core.sae.sae import Sae


def stream_pool(
    xp: Ops, sae: Sae, h: Array, shares: Array, chunk: int, *, backward: bool = True
) -> tuple[Array, Array | None]:
    """c̄ of n sequences, (n, d_sae), from activations h (N, d_in) and weights `shares` (n, N).

    `shares` holds each token's weight in each sequence's mean, 1/count or 0. `chunk` tokens are
    encoded at a time. For top-k activations and `backward`, the indices (N, k) of each token's
    active features come second, for `encode_columns`; else None.
    """
    pooled: Array | None = None
    winners: list[Array] = []
    for at in range(0, h.shape[0], chunk):
        features = sae.encode(xp, h[at : at + chunk])
        part = shares[:, at : at + chunk] @ features
        pooled = part if pooled is None else pooled + part
        if backward and sae.k is not None:
            winners.append(xp.top_indices(abs(features), sae.k))
    if pooled is None:  # N = 0: a matrix product gives zeros of the right shape and device
        return shares @ sae.encode(xp, h), None
    return pooled, xp.concatenate(winners, 0) if winners else None


def encode_columns(xp: Ops, sae: Sae, columns: Array, h: Array, winners: Array | None) -> Array:
    """Features `columns` (c,) alone: h (N, d_in) -> (N, c), differentiable in h.

    `winners` (N, k) are each token's active features, for activations that rank all features.
    """
    part = sae.columns(columns)
    # Top-k over a subset of the columns would select other features: reuse forward's selection.
    if winners is None:
        return part.encode(xp, h)
    z, _, _ = transform_input(xp, xp.as_float(h), sae.input_transform)
    pre = z @ part.W_enc + part.b_enc
    active = (winners[:, :, None] == columns).any(1)
    return mask_features(xp, pre if sae.signed else xp.relu(pre), active)


def gradient_columns(xp: Ops, gradient: Array, slots: int) -> Array:
    """Indices (c,) that cover the non-zeros of a gradient (d_sae,), of which at most `slots` are.

    The gradient of D is non-zero on I_k alone, at most 2k features.
    """
    # A fixed number of columns keeps shapes static; surplus ones have gradient 0.
    return xp.top_indices(abs(gradient), min(slots, gradient.shape[-1]))
