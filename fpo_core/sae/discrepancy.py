"""Pooled features and their discrepancy D (eq. 10)."""

from fpo_core.arrays.ops import Array, Ops


def top_mask(xp: Ops, x: Array, k: int) -> Array:
    """Whether each entry is among the k largest of the last axis: (..., m) -> (..., m) booleans.

    Ties are broken by the lower index, so that every backend selects the same entries.
    """
    # A threshold has a static shape and needs no scatter; a sort's order of ties differs between
    # frameworks. Entries equal to the k-th largest fill what room the larger ones leave.
    k = min(k, x.shape[-1])
    kth = xp.kth_largest(xp.stop_gradient(x), k)
    above = x > kth
    tied = xp.as_float(x == kth)
    room = k - xp.as_float(above).sum(-1)[..., None]
    return above | ((x == kth) & (tied.cumsum(-1) <= room))


def pool(xp: Ops, features: Array, mask: Array) -> Array:
    """Mean features over masked tokens: features (b, t, m), mask (b, t) of 0 and 1 -> c̄ (b, m).

    Step 3 of eq. 10: the divisor is the number of masked tokens, never the padded width. A
    sequence without any pools to 0.
    """
    total = (features * mask[..., None]).sum(1)
    count = mask.sum(1)[..., None]
    return total / xp.where(count > 0, count, 1.0)


def straight_through(xp: Ops, pooled: Array, pre: Array, reference: Array) -> Array:
    """c̄ unchanged, with a straight-through gradient for features that only the reference has.

    Where a feature is 0 at every token of the policy and non-zero in the reference, the gradient of
    its mean pre-activation `pre` stands in for the zero one: three (b, m) arrays -> (b, m).
    """
    off = (pooled == 0) & (reference != 0)
    # pre − stop_gradient(pre) is 0 in value and has the gradient of pre.
    return pooled + xp.where(off, pre - xp.stop_gradient(pre), 0.0)


def union_mask(xp: Ops, policy: Array, reference: Array, k: int) -> Array:
    """I_k: the k largest features of policy or reference, by magnitude: (b, m) x 2 -> (b, m).

    Features that are 0 are never selected, so I_k may hold fewer than 2k.
    """
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
    weight replace I_k, their number replaces k, and each square is weighted (§5.3). With
    `normalize`, D is divided by the mean of c̄_ref² over I_k, so that it does not depend on the
    autoencoder's scale; D is 0 where c̄_ref is 0. Only `policy` receives gradients, and the
    selection of I_k none.
    """
    terms, divisor, size = _terms(xp, policy, reference, k, normalize, weights)
    return terms.sum(-1) / divisor, size


def contributions(
    xp: Ops,
    policy: Array,
    reference: Array,
    k: int,
    *,
    normalize: bool = False,
    weights: Array | None = None,
) -> Array:
    """What each feature adds to D, which is their sum: pooled (b, m) x 2 -> (b, m)."""
    terms, divisor, _ = _terms(xp, policy, reference, k, normalize, weights)
    return terms / divisor[..., None]


def _terms(
    xp: Ops, policy: Array, reference: Array, k: int, normalize: bool, weights: Array | None
) -> tuple[Array, Array, Array]:
    """Squares (b, m) of the compared features, what their sum is divided by, (b,), and |I_k|."""
    reference = xp.stop_gradient(reference)
    squares = (policy - reference) * (policy - reference)
    if weights is None:
        union = union_mask(xp, policy, reference, k)
        size = xp.as_float(union).sum(-1)
        divisor = size * 0 + k
    else:
        union = weights + reference * 0 > 0  # broadcasts (m,) to (b, m) in any framework
        size = divisor = xp.as_float(union).sum(-1)
        squares = squares * weights
    terms = xp.where(union, squares, 0.0)
    if normalize:
        energy = xp.where(union, reference * reference, 0.0).sum(-1)
        has_reference = energy > 0
        terms = xp.where(has_reference[..., None], terms, 0.0)
        divisor = divisor * xp.where(has_reference, energy, 1.0) / xp.where(size > 0, size, 1.0)
    return terms, divisor, size
