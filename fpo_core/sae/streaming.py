"""Pooled features without a (tokens, d_sae) array: the two passes of the feature term.

The first pass streams the encode and keeps c̄ alone; the gradient, which the discrepancy has on I_k
only, then goes back through those columns of the encoder.
"""

from fpo_core.arrays.ops import Array, Ops
from fpo_core.sae.activations import keep, transform_input
from fpo_core.sae.sae import Sae


def stream_pool(
    xp: Ops, sae: Sae, h: Array, shares: Array, chunk: int, *, backward: bool = True
) -> tuple[Array, Array | None]:
    """c̄ of n sequences, (n, d_sae), from activations h (N, d_in) and shares (n, N).

    `chunk` tokens are encoded at a time. Where k features are active at each token, their indices
    (N, k) come second, which `encode_columns` needs in `backward`; else None.
    """
    pooled: Array | None = None
    winners: list[Array] = []
    for at in range(0, h.shape[0], chunk):
        features = sae.encode(xp, h[at : at + chunk])
        part = shares[:, at : at + chunk] @ features
        pooled = part if pooled is None else pooled + part
        if backward and sae.k is not None:
            winners.append(xp.top_indices(abs(features), sae.k))
    if pooled is None:  # no token is scored
        return shares @ sae.encode(xp, h), None
    return pooled, xp.concatenate(winners, 0) if winners else None


def encode_columns(xp: Ops, sae: Sae, columns: Array, h: Array, winners: Array | None) -> Array:
    """Features at these columns alone: columns (c,), h (N, d_in) -> (N, c), differentiable in h.

    `winners` (N, k) are the features active at each token, where the activation ranks them.
    """
    part = sae.columns(columns)
    if winners is None:
        return part.encode(xp, h)
    z, _, _ = transform_input(xp, xp.as_float(h), sae.input_transform)
    pre = z @ part.W_enc + part.b_enc
    active = (winners[:, :, None] == columns).any(1)
    return keep(xp, pre if sae.signed else xp.relu(pre), active)


def gradient_columns(xp: Ops, gradient: Array, slots: int) -> Array:
    """Indices (c,) that cover the non-zeros of c̄'s gradient (d_sae,), of which at most `slots` are.

    D's gradient lies on I_k, which holds at most 2k features.
    """
    return xp.top_indices(abs(gradient), min(slots, gradient.shape[-1]))
