"""The operations of `fpo_core.arrays.ops.Ops` on mlx arrays."""

import math
from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from mlx import nn

_LOG_2 = math.log(2)


def as_float(x: mx.array) -> mx.array:
    """`x` as float32, or float64 where it is float64 (on a CPU; Metal has none)."""
    return x if x.dtype == mx.float64 else x.astype(mx.float32)


def asarray(x: np.ndarray, like: mx.array) -> mx.array:
    """A numpy array as an mlx array, which has no device of its own."""
    del like
    return mx.array(np.asarray(x))


def where(condition: mx.array, x: mx.array, y: mx.array | float) -> mx.array:
    """`x` where `condition`, else `y`."""
    return mx.where(condition, x, y)


def exp(x: mx.array) -> mx.array:
    """Elementwise exponential."""
    return mx.exp(x)


def sqrt(x: mx.array) -> mx.array:
    """Elementwise square root."""
    return mx.sqrt(x)


def relu(x: mx.array) -> mx.array:
    """max(x, 0), elementwise."""
    # In this order: MLX gives the gradient of a tie to the second, and torch gives it to 0.
    return mx.maximum(x, 0.0)


def concatenate(arrays: Sequence[mx.array], axis: int) -> mx.array:
    """Join along an existing axis."""
    return mx.concatenate(list(arrays), axis=axis)


def logsumexp(x: mx.array, axis: int) -> mx.array:
    """log Σ exp x along `axis`."""
    return mx.logsumexp(x, axis=axis)


def log_sigmoid(x: mx.array) -> mx.array:
    """log σ(x)."""
    return nn.log_sigmoid(x)


def log1mexp(x: mx.array) -> mx.array:
    """log(1 − eˣ) for x < 0."""
    # Each branch sees arguments of its own range alone: the other's gradient would be 0 · inf.
    near = x > -_LOG_2
    small, large = mx.where(near, x, -_LOG_2), mx.where(near, -_LOG_2, x)
    return mx.where(near, mx.log(-mx.expm1(small)), mx.log1p(-mx.exp(large)))


def take_along_axis(x: mx.array, indices: mx.array, axis: int) -> mx.array:
    """Gather along `axis`."""
    return mx.take_along_axis(x, indices, axis=axis)


def put_along_axis(x: mx.array, indices: mx.array, values: mx.array, axis: int) -> mx.array:
    """A copy with `values` in the places that `take_along_axis` reads."""
    return mx.put_along_axis(x, indices, values, axis=axis)


def kth_largest(x: mx.array, k: int) -> mx.array:
    """The k-th largest value along the last axis, which is kept with length 1.

    `mx.topk` returns its values unordered, hence the minimum. It has no gradient, and needs none.
    """
    return mx.topk(mx.stop_gradient(x), k, axis=-1).min(axis=-1, keepdims=True)


def top_indices(x: mx.array, k: int) -> mx.array:
    """Indices of the k largest values along the last axis, in any order."""
    size = x.shape[-1]
    return mx.argpartition(mx.stop_gradient(x), size - k, axis=-1)[..., size - k :]


def largest(x: mx.array, axis: int) -> mx.array:
    """The largest value along `axis`."""
    return x.max(axis=axis)


def stop_gradient(x: mx.array) -> mx.array:
    """`x`, through which no gradient flows."""
    return mx.stop_gradient(x)
