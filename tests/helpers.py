"""What several tests share: frameworks side by side, small batches, and a small autoencoder."""

import dataclasses
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fpo_core.arrays.ops import Ops
from fpo_core.data.batches import Batch, collate
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.sae.sae import Sae

BACKENDS = ("torch", "mlx")


@dataclass(frozen=True)
class Framework:
    """A backend's ops at one precision, and the ways in and out of its arrays."""

    name: str
    xp: Ops
    array: Callable[[Any], Any]
    numpy: Callable[[Any], np.ndarray]
    dtype: Any
    rtol: float

    def close(self, found: Any, expected: Any, scale: float = 1.0) -> None:
        """Assert that an array of this framework holds the expected numbers."""
        expected = np.asarray(expected)
        atol = self.rtol * scale
        np.testing.assert_allclose(self.numpy(found), expected, rtol=self.rtol, atol=atol)


def framework(name: str) -> Framework:
    """`numpy64`, `numpy32`, `torch64`, `torch32`, `mlx32` or `mlx64`; ImportError without it."""
    library, bits = name[:-2], name[-2:]
    dtype = np.float64 if bits == "64" else np.float32
    rtol = 1e-12 if bits == "64" else 1e-5
    package = "fpo_core.arrays.numpy_ops" if library == "numpy" else f"fpo_{library}.ops"
    xp: Any = importlib.import_module(package)

    def cast(x: Any) -> np.ndarray:
        x = np.array(x)
        return x.astype(dtype) if x.dtype.kind == "f" else x

    if library == "torch":
        torch = importlib.import_module("torch")
        return Framework(
            name, xp, lambda x: torch.from_numpy(cast(x)), lambda x: x.numpy(), dtype, rtol
        )
    if library == "mlx":
        mx = importlib.import_module("mlx.core")
        kinds = {np.float64: mx.float64, np.float32: mx.float32}

        def array(x: Any) -> Any:
            x = cast(x)
            return mx.array(x, kinds.get(x.dtype.type))

        return Framework(name, xp, array, np.array, dtype, rtol)
    return Framework(name, xp, cast, np.asarray, dtype, rtol)


FRAMEWORKS = ("numpy64", "numpy32", "torch64", "torch32", "mlx32")


def gradient(fw: Framework, function: Callable[[Any], Any], x: Any) -> np.ndarray:
    """The gradient of a scalar function at x, by the framework's own differentiation."""
    if fw.name.startswith("torch"):
        leaf = fw.array(x).requires_grad_()
        result = function(leaf)
        if not result.requires_grad:
            return np.zeros(np.shape(x))
        result.backward()
        return np.zeros(np.shape(x)) if leaf.grad is None else leaf.grad.numpy()
    mx = importlib.import_module("mlx.core")
    return np.array(mx.grad(function)(fw.array(x)))


def random_pairs(count: int, seed: int = 0, vocab: int = 64) -> TokenisedPairs:
    """Pairs of random tokens from 4 on, with prompts of 3–9 and completions of 2–12 tokens."""
    generator = np.random.default_rng(seed)

    def tokens(least: int, most: int) -> list[int]:
        return generator.integers(4, vocab, generator.integers(least, most + 1)).tolist()

    return TokenisedPairs.from_lists(
        (tokens(3, 9), tokens(2, 12), tokens(2, 12)) for _ in range(count)
    )


def pairs_of_prompts(prompts: int, of_each: int) -> TokenisedPairs:
    """The pairs of `random_pairs` under fewer prompts, those with the same one far apart."""
    pairs = random_pairs(prompts * of_each)
    return TokenisedPairs.from_lists(
        (pairs[i % prompts].prompt.tolist(), pair.chosen.tolist(), pair.rejected.tolist())
        for i, pair in enumerate(pairs)
    )


def random_batch(count: int = 4, seed: int = 0, width: int | None = None) -> Batch:
    """`random_pairs` as one batch."""
    pairs = random_pairs(count, seed)
    return collate(pairs, range(count), width)


def random_sae(d_in: int, d_sae: int = 96, *, kind: str = "relu", seed: int = 0) -> Sae:
    """An autoencoder with random weights whose features fire about half the time."""
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=(d_in, d_sae)).astype(np.float32) / np.float32(d_in**0.5)
    bias = generator.normal(size=d_sae).astype(np.float32) * np.float32(0.1)
    k = 8 if kind in ("topk", "abstopk") else None
    sae = Sae(architecture=kind, d_in=d_in, d_sae=d_sae, k=k, W_enc=weights, b_enc=bias)
    more = np.random.default_rng(seed + 1).normal(size=(3, d_sae)).astype(np.float32)
    if kind == "jumprelu":
        return dataclasses.replace(sae, threshold=abs(more[0]) / 4)
    if kind == "gated":
        return dataclasses.replace(sae, r_mag=more[1] / 4, b_mag=more[2] / 4)
    return sae


def identity_sae(d: int) -> Sae:
    """Features [h⁺, h⁻], so that pooled features give the activation back."""
    weights = np.concatenate([np.eye(d), -np.eye(d)], axis=1).astype(np.float32)
    return Sae(
        architecture="relu", d_in=d, d_sae=2 * d, W_enc=weights, b_enc=np.zeros(2 * d, np.float32)
    )
