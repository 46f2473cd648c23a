"""The operations that the mathematics needs and that frameworks spell differently.

Any module holding these functions is a backend: pass it as `xp`. Operators, indexing, `.shape`,
`.sum(axis)`, `.cumsum(axis)` and `.reshape` are common to numpy, torch and mlx and used directly.
"""

from collections.abc import Sequence
from typing import Any, Protocol

Array = Any
"""A numpy array, torch tensor or mlx array; its shape is given in each function's docstring."""


class Ops(Protocol):
    """The functions of `fpo_core.arrays.numpy_ops`, `fpo_torch.ops` and `fpo_mlx.ops`."""

    def as_float(self, x: Array) -> Array:
        """`x` in the precision of the mathematics: float32, or float64 where it is float64."""
        ...

    # `like`, since frameworks name devices differently, and an array knows its own.
    def asarray(self, x: Any, like: Array) -> Array:
        """A numpy array as this framework's array on the device of `like`, its dtype kept."""
        ...

    def where(self, condition: Array, x: Array, y: Array | float) -> Array:
        """`x` where `condition`, else `y`."""
        ...

    def exp(self, x: Array) -> Array:
        """Elementwise exponential."""
        ...

    def sqrt(self, x: Array) -> Array:
        """Elementwise square root."""
        ...

    def relu(self, x: Array) -> Array:
        """max(x, 0), elementwise, with gradient 0 at 0."""
        ...

    def concatenate(self, arrays: Sequence[Array], axis: int) -> Array:
        """Join along an existing axis."""
        ...

    def logsumexp(self, x: Array, axis: int) -> Array:
        """log Σ exp x along `axis`, without overflow."""
        ...

    def log_sigmoid(self, x: Array) -> Array:
        """log σ(x), without overflow for large negative x."""
        ...

    def log1mexp(self, x: Array) -> Array:
        """log(1 − eˣ) for x < 0, without cancellation near 0 (Mächler 2012)."""
        ...

    def take_along_axis(self, x: Array, indices: Array, axis: int) -> Array:
        """Gather along `axis`; indices of any integer dtype, all in range."""
        ...

    def put_along_axis(self, x: Array, indices: Array, values: Array, axis: int) -> Array:
        """A copy of `x` with `values` in the places that `take_along_axis` reads."""
        ...

    # A threshold, not top-k indices: MLX's topk returns unordered values without indices, and
    # comparing with the k-th value is deterministic and has a static shape.
    def kth_largest(self, x: Array, k: int) -> Array:
        """The k-th largest value along the last axis, which is kept with length 1."""
        ...

    def top_indices(self, x: Array, k: int) -> Array:
        """Indices of the k largest values along the last axis, in any order; ties fall anyhow."""
        ...

    def largest(self, x: Array, axis: int) -> Array:
        """The largest value along `axis`, which is dropped."""
        ...

    def stop_gradient(self, x: Array) -> Array:
        """`x`, through which no gradient flows."""
        ...
