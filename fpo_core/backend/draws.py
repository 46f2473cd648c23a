"""Random draws of samples: functions of seed, prompt and number, the same on every framework.

A token is the inverse of its distribution function at one uniform number. So a sample does not
depend on which others are in its batch, but for the rounding of the logits there.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fpo_core.arrays.ops import Array, Ops

_HALVINGS = 30
_BITS = 23
"""Of a uniform number: u · total then rounds to less than the total in float32."""


def occurrences(prompts: Sequence[np.ndarray]) -> list[int]:
    """How many equal prompts each one has before it: the numbers of samples of one prompt."""
    seen: Counter[bytes] = Counter()
    numbers = []
    for prompt in prompts:
        ids = _bytes(prompt)
        numbers.append(seen[ids])
        seen[ids] += 1
    return numbers


def uniforms(
    prompts: Sequence[np.ndarray], seed: int, tokens: int, numbers: Sequence[int] | None = None
) -> npt.NDArray[np.float32]:
    """Numbers in [0, 1) for each token of a sample of each prompt, (n, tokens).

    `numbers` tell samples of one prompt from each other; by default `occurrences`.
    """
    numbers = occurrences(prompts) if numbers is None else numbers
    rows = [_row(p, seed, number, tokens) for p, number in zip(prompts, numbers, strict=True)]
    return np.stack(rows) if rows else np.zeros((0, tokens), np.float32)


def seeds(
    prompts: Sequence[np.ndarray], seed: int, numbers: Sequence[int] | None = None
) -> list[int]:
    """A seed below 2⁶³ for a sample of each prompt, where another library draws its tokens."""
    numbers = occurrences(prompts) if numbers is None else numbers
    sources = (_bits(p, seed, number) for p, number in zip(prompts, numbers, strict=True))
    return [int(bits.random_raw()) >> 1 for bits in sources]


def _row(prompt: np.ndarray, seed: int, number: int, tokens: int) -> npt.NDArray[np.float32]:
    raw = _bits(prompt, seed, number).random_raw(tokens)
    return (raw >> np.uint64(64 - _BITS)).astype(np.float32) * 2.0**-_BITS


def _bits(prompt: np.ndarray, seed: int, number: int) -> np.random.PCG64:
    digest = hashlib.blake2b(_bytes(prompt), digest_size=16).digest()
    return np.random.PCG64([seed, number, int.from_bytes(digest, "little")])


def _bytes(prompt: np.ndarray) -> bytes:
    return np.asarray(prompt, "<i4").tobytes()


def pick(xp: Ops, logits: Array, u: Array, temperature: float, top_p: float) -> Array:
    """Sampled token ids (n,) of logits (n, v) at uniform numbers u (n,), for a temperature above 0.

    The likeliest tokens of total share `top_p` are those of the distribution at the temperature.
    """
    x = xp.as_float(logits) / temperature
    p = xp.exp(x - xp.largest(x, -1)[:, None])
    if top_p < 1:
        p = xp.where(p >= _threshold(xp, p, top_p), p, 0.0)
    below = p.cumsum(-1)
    return (below <= u[:, None] * below[:, -1:]).sum(-1)


def _threshold(xp: Ops, p: Array, top_p: float) -> Array:
    """The greatest number, (n, 1), such that tokens at least so likely have that share."""
    wanted = top_p * p.sum(-1)[:, None]
    low = xp.largest(p, -1)[:, None] * 0
    high = low + 1
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = xp.where(p >= middle, p, 0.0).sum(-1)[:, None] >= wanted
        low, high = xp.where(enough, middle, low), xp.where(enough, high, middle)
    return low
