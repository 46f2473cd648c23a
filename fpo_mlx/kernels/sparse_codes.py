"""Sparse products for training autoencoders: `fpo_core.sae_training.kernels.Kernels` on MLX.

Rows are gathered by the places of non-zero features, and results scattered, a chunk of codes at a
time: shapes stay static, so that the graph needs no numbers from the device while it is built.
"""

from collections.abc import Callable, Mapping

import mlx.core as mx
import numpy as np

from fpo_core.config import BackendConfig
from fpo_core.sae_training.kernels import Codes, Parameters
from fpo_mlx import device as devices
from fpo_mlx import ops

_GATHERED = 64 << 20
"""Most bytes of rows gathered at once."""
_BETAS, _EPS = (0.9, 0.999), 1e-8


class MlxKernels:
    """See `fpo_core.sae_training.kernels.Kernels`."""

    ops = ops

    def __init__(self, config: BackendConfig) -> None:
        self.device = devices.select_device(config)
        # Of the one dense product; parameters and all else are float32.
        on_gpu = self.device == "gpu"
        self.dtype = devices.select_dtype(config, self.device) if on_gpu else mx.float32

    def array(self, x: np.ndarray) -> mx.array:
        """See `Kernels`."""
        return mx.array(np.asarray(x))

    def numpy(self, x: mx.array) -> np.ndarray:
        """See `Kernels`."""
        return np.array(x)

    def finish(self, *arrays: mx.array) -> None:
        """See `Kernels`."""
        mx.eval(*arrays)

    def project(self, z: mx.array, W_enc: mx.array, b_enc: mx.array) -> mx.array:
        """See `Kernels`."""
        product = z.astype(self.dtype) @ W_enc.astype(self.dtype).T
        return product.astype(mx.float32) + b_enc

    def choose_batch(self, pre: mx.array, count: int) -> Codes:
        """See `Kernels`; of fewer positive entries the rest has value 0."""
        flat = pre.reshape(-1)
        count = min(count, flat.size)
        places = mx.argpartition(flat, flat.size - count)[flat.size - count :]
        places = mx.sort(places)
        tokens = places // pre.shape[1]
        values = mx.maximum(flat[places], 0.0)
        return Codes(tokens, places - tokens * pre.shape[1], values, len(pre))

    def choose_rows(self, pre: mx.array, k: int) -> Codes:
        """See `Kernels`."""
        features = ops.top_indices(pre, k)
        values = mx.maximum(mx.take_along_axis(pre, features, -1), 0.0)
        tokens = mx.repeat(mx.arange(len(pre)), k)
        return Codes(tokens, features.reshape(-1), values.reshape(-1), len(pre))

    def decode(self, codes: Codes, W_dec: mx.array) -> mx.array:
        """See `Kernels`."""
        return _scattered(codes.tokens, codes.features, codes.values, W_dec, codes.count)

    def value_gradients(self, codes: Codes, gradient: mx.array, W_dec: mx.array) -> mx.array:
        """See `Kernels`."""

        def products(chunk: slice) -> mx.array:
            return (gradient[codes.tokens[chunk]] * W_dec[codes.features[chunk]]).sum(-1)

        return mx.concatenate(_in_chunks(products, codes, W_dec))

    def per_feature(self, codes: Codes, rows: mx.array, features: int) -> mx.array:
        """See `Kernels`."""
        return _scattered(codes.features, codes.tokens, codes.values, rows, features)

    def sums(self, codes: Codes, features: int) -> mx.array:
        """See `Kernels`."""
        return mx.zeros(features).at[codes.features].add(codes.values)

    def add_rows(self, x: mx.array, rows: mx.array, update: mx.array) -> mx.array:
        """See `Kernels`."""
        return x.at[rows].add(update)

    def unit_rows(self, x: mx.array) -> mx.array:
        """See `Kernels`."""
        return x / mx.maximum(mx.linalg.norm(x, axis=-1, keepdims=True), 1e-12)

    def adam(self, parameters: Parameters) -> "MlxAdam":
        """See `Kernels`."""
        return MlxAdam(parameters)


class MlxAdam:
    """See `fpo_core.sae_training.kernels.Adam`."""

    def __init__(self, parameters: Parameters) -> None:
        self._m = {name: mx.zeros_like(weight) for name, weight in parameters.items()}
        self._v = {name: mx.zeros_like(weight) for name, weight in parameters.items()}
        self._steps = 0

    def step(self, parameters: Parameters, gradients: Parameters, rate: float) -> Parameters:
        """See `Adam`."""
        self._steps += 1
        (first, second), stepped = _BETAS, {}
        rate_now, root = rate / (1 - first**self._steps), (1 - second**self._steps) ** 0.5
        for name, weight in parameters.items():
            g = gradients[name]
            m = self._m[name] = first * self._m[name] + (1 - first) * g
            v = self._v[name] = second * self._v[name] + (1 - second) * g * g
            stepped[name] = weight - rate_now * m / (mx.sqrt(v) / root + _EPS)
        mx.eval(self._m, self._v)
        return stepped

    def state(self) -> dict[str, np.ndarray]:
        """See `Adam`."""
        moments = {"m": self._m, "v": self._v}
        return {
            f"{k}.{n}": np.array(x) for k, by_name in moments.items() for n, x in by_name.items()
        }

    def load_state(self, state: Mapping[str, np.ndarray], steps: int) -> None:
        """See `Adam`."""
        self._steps = steps
        self._m = {name: mx.array(state[f"m.{name}"]) for name in self._m}
        self._v = {name: mx.array(state[f"v.{name}"]) for name in self._v}


def _scattered(
    to: mx.array, rows: mx.array, values: mx.array, table: mx.array, count: int
) -> mx.array:
    """Σ values · table[rows] by `to`, three arrays (n,): (count, d)."""
    out = mx.zeros((count, table.shape[1]))
    step = _chunk(table)
    for at in range(0, len(to), step):
        part = slice(at, at + step)
        out = out.at[to[part]].add(values[part, None] * table[rows[part]])
    return out


def _in_chunks(
    products: Callable[[slice], mx.array], codes: Codes, table: mx.array
) -> list[mx.array]:
    step = _chunk(table)
    return [products(slice(at, at + step)) for at in range(0, len(codes.values), step)]


def _chunk(table: mx.array) -> int:
    return max(1, _GATHERED // (4 * table.shape[1]))
