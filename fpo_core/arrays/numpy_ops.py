"""The NumPy backend: the reference that every other backend is compared with (in float64)."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_LOG_2 = math.log(2)
Floats = npt.NDArray[np.floating[Any]]


def as_float(x: npt.ArrayLike) -> Floats:
    """`x` as float32, or float64 where it is float64."""
    x = np.asarray(x)
    return x if x.dtype == np.float64 else x.astype(np.float32)


def asarray(x: npt.ArrayLike, like: npt.ArrayLike) -> npt.NDArray[Any]:
    """`x` as it is."""
    del like
    return np.asarray(x)


def where(condition: npt.ArrayLike, x: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
    """`x` where `condition`, else `y`, in the precision of `x`."""
    x = np.asarray(x)
    return np.where(condition, x, np.asarray(y, dtype=x.dtype))


def exp(x: Floats) -> Floats:
    """Elementwise exponential."""
    return np.exp(x)


def sqrt(x: Floats) -> Floats:
    """Elementwise square root."""
    return np.sqrt(x)


def relu(x: Floats) -> Floats:
    """max(x, 0), elementwise."""
    return np.where(x > 0, x, np.zeros_like(x))


def concatenate(arrays: Sequence[npt.ArrayLike], axis: int) -> npt.NDArray[Any]:
    """Join along an existing axis."""
    return np.concatenate([np.asarray(array) for array in arrays], axis=axis)


def logsumexp(x: Floats, axis: int) -> Floats:
    """log Σ exp x along `axis`, shifted by the maximum so that it cannot overflow."""
    top = x.max(axis=axis, keepdims=True)
    return (top + np.log(np.exp(x - top).sum(axis=axis, keepdims=True))).squeeze(axis)


def log_sigmoid(x: npt.ArrayLike) -> Floats:
    """log σ(x) = −log(1 + e^−x)."""
    # log(1 / (1 + exp(−x))) overflows for large negative x, logaddexp does not.
    return -np.logaddexp(0.0, -np.asarray(x))


def log1mexp(x: npt.ArrayLike) -> Floats:
    """log(1 − eˣ) for x < 0: eˣ is rounded near 1 above −log 2, and lost beside 1 below."""
    x = np.asarray(x)
    near = x > -_LOG_2
    return np.where(
        near, np.log(-np.expm1(where(near, x, -_LOG_2))), np.log1p(-np.exp(where(near, -_LOG_2, x)))
    )


def take_along_axis(x: Floats, indices: npt.NDArray[Any], axis: int) -> Floats:
    """Gather along `axis`."""
    return np.take_along_axis(x, indices.astype(np.int64), axis=axis)


def put_along_axis(
    x: Floats, indices: npt.NDArray[Any], values: npt.ArrayLike, axis: int
) -> Floats:
    """A copy with `values` in the places that `take_along_axis` reads."""
    copied = x.copy()
    np.put_along_axis(copied, indices.astype(np.int64), values, axis=axis)
    return copied


def kth_largest(x: Floats, k: int) -> Floats:
    """The k-th largest value along the last axis, which is kept with length 1."""
    return np.partition(x, x.shape[-1] - k, axis=-1)[..., x.shape[-1] - k, None]


def top_indices(x: Floats, k: int) -> npt.NDArray[np.int64]:
    """Indices of the k largest values along the last axis, in any order."""
    return np.argpartition(x, x.shape[-1] - k, axis=-1)[..., x.shape[-1] - k :]


def largest(x: Floats, axis: int) -> Floats:
    """The largest value along `axis`."""
    return x.max(axis=axis)


def stop_gradient(x: Floats) -> Floats:
    """`x`: NumPy has no gradients to stop."""
    return x
