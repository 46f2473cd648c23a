"""Pooled features and their discrepancy D (eq. 10)."""

from fpo_core.arrays.ops import Array, Ops


def top_mask(xp: Ops, x: Array, k: int) -> Array:
    """Which entries are among the k largest along the last axis: (..., m) -> (..., m) booleans.

    Equal values are taken in the order of their index, so two backends cannot disagree on ties.
    """
    k = min(k, x.shape[-1])
    kth = xp.kth_largest(xp.stop_gradient(x), k)
    above = x > kth
    tied = xp.as_float(x == kth)
    room = k - xp.as_float(above).sum(-1)[..., None]
    return above | ((x == kth) & (tied.cumsum(-1) <= room))


def pool(xp: Ops, features: Array, mask: Array) -> Array:
    """Mean feature over a sequence's own tokens: (b, t, m), (b, t) 0/1 floats -> (b, m).

    Step 3 of eq. 10: divided by the tokens counted, never by the padded width. A sequence with no
    token to count pools to 0.
    """
    total = (features * mask[..., None]).sum(1)
    count = mask.sum(1)[..., None]
    return total / xp.where(count > 0, count, 1.0)


def let_through(xp: Ops, pooled: Array, pre: Array, reference: Array) -> Array:
    """c̄ as it is, with a gradient for features that are off in the policy and on in the reference.

    Such a feature, 0 at every token, has the gradient of its mean pre-activation `pre` in place of
    none (straight-through): pooled, pre, reference (b, m) -> (b, m).
    """
    off = (pooled == 0) & (reference != 0)
    return pooled + xp.where(off, pre - xp.stop_gradient(pre), 0.0)


def union_mask(xp: Ops, policy: Array, reference: Array, k: int) -> Array:
    """I_k: the top k of policy and of reference that fired, by magnitude: (b, m) x 2 -> (b, m)."""
    policy, reference = abs(xp.stop_gradient(policy)), abs(reference)
    top_policy = top_mask(xp, policy, k) & (policy > 0)
    top_reference = top_mask(xp, reference, k) & (reference > 0)
    return top_policy | top_reference


def discrepancy(
    xp: Ops,
    policy: Array,
    reference: Array,
    k: int,
    *,
    normalize: bool = False,
    weights: Array | None = None,
) -> tuple[Array, Array]:
    """D = (1/k) Σ_{i∈I_k} (c̄_θ,i − c̄_ref,i)² and |I_k|: pooled (b, m) x 2 -> (b,), (b,).

    Eq. 10; units are squared feature activations. With `weights` (m,), the features of non-zero
    weight stand in for I_k, their number for k, and each square is weighted (§5.3). With
    `normalize`, D is divided by the mean of c̄_ref² over I_k, which makes it free of the
    autoencoder's scale; it is 0 where c̄_ref is empty. Gradients flow through `policy` alone, never
    through the choice of I_k.
    """
    reference = xp.stop_gradient(reference)
    squares = (policy - reference) * (policy - reference)
    if weights is None:
        union = union_mask(xp, policy, reference, k)
        size = xp.as_float(union).sum(-1)
    else:
        union = weights + reference * 0 > 0
        size = xp.as_float(union).sum(-1)
        squares, k = squares * weights, size
    d = xp.where(union, squares, 0.0).sum(-1) / k
    if normalize:
        energy = xp.where(union, reference * reference, 0.0).sum(-1)
        has_reference = energy > 0
        scale = xp.where(has_reference, energy, 1.0)
        d = xp.where(has_reference, d * size / scale, 0.0)
    return d, size
