"""Input transforms and activation functions of autoencoders, for any backend."""

from math import sqrt

from fpo_core.arrays.ops import Array, Ops
from fpo_core.sae.discrepancy import top_mask

LAYER_NORM_EPS = 1e-5


def transform_input(xp: Ops, h: Array, name: str) -> tuple[Array, Array, Array]:
    """Normalise inputs by the transform `name`: h (..., d) -> z (..., d), scale and shift (..., 1).

    z = (h − shift) / scale. `layer_norm` divides by the unbiased standard deviation plus 1e-5, as
    SAELens does; `constant_norm_rescale` gives every vector the norm √d. A zero vector stays zero.
    """
    d = h.shape[-1]
    zero = h[..., :1] * 0.0  # in the dtype and on the device of h
    if name == "layer_norm":
        shift = h.sum(-1)[..., None] / d
        centred = h - shift
        scale = _root(xp, (centred * centred).sum(-1)[..., None] / max(d - 1, 1)) + LAYER_NORM_EPS
        return centred / scale, scale, shift
    if name == "constant_norm_rescale":
        norm = _root(xp, (h * h).sum(-1)[..., None])
        scale = xp.where(norm > 0, norm, sqrt(d)) / sqrt(d)
        return h / scale, scale, zero
    return h, zero + 1.0, zero


def activate(
    xp: Ops, pre: Array, architecture: str, k: int | None, extra: dict[str, Array]
) -> Array:
    """Activation of pre-activations x W + b: (..., m) -> (..., m).

    `extra` holds threshold for jumprelu. topk picks among *pre*-activations and then applies relu,
    so fewer than k features may fire; abstopk picks by magnitude and keeps the sign.
    """
    if architecture == "jumprelu":
        return mask_features(xp, xp.relu(pre), pre > extra["threshold"])
    if architecture == "topk":
        return mask_features(xp, xp.relu(pre), top_mask(xp, pre, k or 0))
    if architecture == "abstopk":
        return mask_features(xp, pre, top_mask(xp, abs(pre), k or 0))
    return xp.relu(pre)


def mask_features(xp: Ops, features: Array, active: Array) -> Array:
    """Features where `active`, else 0: two (..., m) arrays -> (..., m); no gradient to the mask."""
    # A product takes a third to a half of the time of `where` on CPUs.
    return features * xp.stop_gradient(active)


def _root(xp: Ops, x: Array) -> Array:
    """√x with gradient 0 at x = 0."""
    # Both `where`s are needed: backward through the outer one alone would give 0 · ∞ at 0.
    positive = x > 0
    return xp.where(positive, xp.sqrt(xp.where(positive, x, 1.0)), 0.0)
