"""Softmax attention for MLX's CPU build outside macOS, whose own computes each exponential alone.

It stands in for `mx.fast.scaled_dot_product_attention`, which backward would compute once more.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import mlx.core as mx

from fpo_mlx.exponential import PER_OCTAVE, by_hand, exp2

_LOW = -1e30
"""What a score is lowered by where a query may not look: finite, so that no row gives NaN."""
Spread = dict[Any, tuple[Any, mx.array]]
"""Masks with what they add to scores, which blocks have in common; by name or id, and shape."""
_MOST = 4
"""Two kinds of layers may give prompts and completions a mask each."""


@contextlib.contextmanager
def own_attention(*, keep: bool, spread: Spread) -> Iterator[None]:
    """Within, models that ask MLX for attention get this one, wherever exponentials are by hand.

    It is the faster from some 30,000 scores on; fewer take a millisecond at most either way.
    Backward has the attention's weights from memory where they are kept, else once more from the
    scores.
    """
    mlx: Any = mx.fast.scaled_dot_product_attention

    def attend(q: mx.array, k: mx.array, v: mx.array, *, scale: float, **kw: Any) -> mx.array:
        mask, sinks = kw.get("mask"), kw.get("sinks")
        by_head = isinstance(mask, mx.array) and mask.ndim > 2 and mask.shape[-3] > 1
        if by_head or sinks is not None or not by_hand(q):
            return mlx(q, k, v, scale=scale, **kw)
        return _attention(q, k, v, scale, mask, spread, keep)

    mx.fast.scaled_dot_product_attention = attend
    try:
        yield
    finally:
        mx.fast.scaled_dot_product_attention = mlx


def _attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    scale: float,
    mask: mx.array | str | None,
    spread: Spread,
    keep: bool,
) -> mx.array:
    """softmax(s q kᵀ + mask) v: (b, h, l, d), (b, g, t, d), (b, g, t, m) -> (b, h, l, m).

    Queries that share a head of keys are rows of one product. A column of ones beside the values
    sums the weights, and one beside the keys adds a number to each row of scores. Scores are in
    octaves, whose powers take fewer passes.
    """
    batch, heads, length, _ = q.shape
    groups = k.shape[1]
    rows = heads // groups * length
    shape = (batch, groups, rows, k.shape[2])
    added = None if mask is None else _added(mask, shape, length, spread)
    octaves = scale * PER_OCTAVE

    def products(q: mx.array, k: mx.array) -> mx.array:
        keys = k.swapaxes(-1, -2)
        return q @ keys if added is None else mx.addmm(added, q, keys)

    def forward(q: mx.array, k: mx.array, v: mx.array) -> list[mx.array]:
        scores = products(q * octaves, k)
        top = scores.max(axis=-1, keepdims=True)
        weights = exp2(scores - top)
        summed = weights @ _beside(v, 1)
        total = summed[..., -1:]
        made = summed[..., :-1] / total
        return [made, weights, total] if keep else [made, top + mx.log2(total)]

    def backward(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, ...]:
        q, k, v = primals
        outer, made = cotangents[0], outputs[0]
        if keep:
            weights, outer = outputs[1], outer / outputs[2]
        else:
            weights = exp2(products(_beside(q * octaves, -outputs[1]), _beside(k, 1)))
        inward = -(outer * made).sum(axis=-1, keepdims=True)
        to_scores = weights * (_beside(outer, inward) @ _beside(v, 1).swapaxes(-1, -2))
        to_q, to_k = to_scores @ k * scale, to_scores.swapaxes(-1, -2) @ (q * scale)
        return to_q, to_k, weights.swapaxes(-1, -2) @ outer

    function: Any = mx.custom_function(forward)
    function.vjp(backward)
    made = function(q.reshape(batch, groups, rows, -1), k, v)[0]
    return made.reshape(batch, heads, length, -1)


def _added(mask: mx.array | str, shape: tuple[int, ...], length: int, spread: Spread) -> mx.array:
    """What a mask adds to scores of this shape: made once for all blocks that give the same."""
    key = (mask if isinstance(mask, str) else id(mask), shape)
    if key not in spread:
        if len(spread) >= _MOST:  # a model that gives each block a mask of its own
            spread.clear()
        spread[key] = mask, _spread(mask, shape, length)  # kept, a mask's id stays its own
    return spread[key][1]


def _spread(mask: mx.array | str, shape: tuple[int, ...], length: int) -> mx.array:
    """What a mask adds in octaves, (b, g, rows, t): in memory as a whole, for products to copy."""
    *_, rows, keys = shape
    if isinstance(mask, str):  # causal: the last queries are of the last keys
        mask = mx.arange(keys - length, keys)[:, None] >= mx.arange(keys)
    if mask.dtype == mx.bool_:
        mask = mx.where(mask, 0.0, _LOW)
    mask = (mask * PER_OCTAVE).reshape(*[1] * (4 - mask.ndim), *mask.shape)[:, :, None]
    mask = mx.broadcast_to(mask, (mask.shape[0], 1, rows // length, length, keys))
    made = mx.contiguous(mx.broadcast_to(mask.reshape(-1, 1, rows, keys), shape))
    mx.eval(made)
    return made


def _beside(x: mx.array, column: mx.array | float) -> mx.array:
    """(..., n, d) -> (..., n, d + 1)."""
    return mx.concatenate([x, mx.broadcast_to(mx.array(column), (*x.shape[:-1], 1))], axis=-1)
