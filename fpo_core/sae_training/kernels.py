"""What a backend provides to train autoencoders: `Kernels`, and the sparse codes they pass on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fpo_core.arrays.ops import Array, Ops

Parameters = dict[str, Array]
"""W_enc (d_sae, d_in), transposed so that a feature is a row; b_enc; W_dec (d_sae, d_in); b_dec."""


@dataclass(frozen=True)
class Codes:
    """The n non-zero features of a batch, token by token: three arrays of the framework, (n,)."""

    tokens: Array
    features: Array
    values: Array
    count: int
    """Tokens of the batch."""
    by_feature: Any = None
    """The backend's own: what it needs to go through them feature by feature."""

    def scaled(self, factors: Array) -> "Codes":
        """The same places with values times `factors` (n,)."""
        return self.valued(self.values * factors)

    def valued(self, values: Array) -> "Codes":
        """The same places with other values (n,)."""
        return Codes(self.tokens, self.features, values, self.count, self.by_feature)


class Adam(Protocol):
    """Adam with β 0.9 and 0.999, ε 1e-8 and bias correction, on a set of parameters."""

    def step(self, parameters: Parameters, gradients: Parameters, rate: float) -> Parameters:
        """The parameters after a step; those passed in may be overwritten."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Both moments by parameter, as `m.W_enc`, `v.W_enc`."""
        ...

    def load_state(self, state: Mapping[str, np.ndarray], steps: int) -> None:
        """Replace the moments, after so many steps."""
        ...


class Kernels(Protocol):
    """Sparse products and what else frameworks do differently. b tokens, m = d_sae, n codes."""

    ops: Ops
    device: Any
    """As `fpo_core.backend.parts.Devices` takes it."""

    def array(self, x: np.ndarray) -> Array:
        """A NumPy array on the device, its dtype unchanged."""
        ...

    def numpy(self, x: Array) -> np.ndarray:
        """An array on the host."""
        ...

    def finish(self, *arrays: Array) -> None:
        """Compute lazy arrays now."""
        ...

    def project(self, z: Array, W_enc: Array, b_enc: Array) -> Array:
        """Pre-activations z W_encᵀ + b_enc: (b, d), (m, d), (m,) -> (b, m) in float32."""
        ...

    def choose_batch(self, pre: Array, count: int) -> Codes:
        """The `count` largest positive entries of all (b, m); fewer where fewer are positive."""
        ...

    def choose_rows(self, pre: Array, k: int) -> Codes:
        """The k largest entries of each row of (b, m), negative ones as 0."""
        ...

    def decode(self, codes: Codes, W_dec: Array) -> Array:
        """Σ value · W_dec[feature] per token: (m, d) -> (b, d)."""
        ...

    def value_gradients(self, codes: Codes, gradient: Array, W_dec: Array) -> Array:
        """gradient[token] · W_dec[feature] of each code: (b, d), (m, d) -> (n,)."""
        ...

    def per_feature(self, codes: Codes, rows: Array, features: int) -> Array:
        """Σ value · rows[token] per feature, the transpose of `decode`: (b, d) -> (m, d)."""
        ...

    def sums(self, codes: Codes, features: int) -> Array:
        """Σ value per feature: (m,)."""
        ...

    def add_rows(self, x: Array, rows: Array, update: Array) -> Array:
        """x with `update` (r, …) added to its rows (r,) of different indices."""
        ...

    def unit_rows(self, x: Array) -> Array:
        """x with each row of norm 1; it may be overwritten."""
        ...

    def adam(self, parameters: Parameters) -> Adam:
        """Adam at its start."""
        ...
