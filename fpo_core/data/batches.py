"""A batch of pairs as padded NumPy arrays, the input of every backend."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fpo_core.data.token_store import Int32s, Int64s, TokenisedPair

PAD_ID = 0
"""Right padding. Causal attention never sees it and the masks exclude it, so any id would do."""

SMALLEST_WIDTH = 32


def bucket_width(length: int) -> int:
    """The smallest allowed width of at least `length` tokens.

    Widths are 32, 64, 96, 128, then four to every doubling (160, 192, 224, 256, 320, ...): padding
    is under a quarter, and lengths up to 1024 make 16 shapes, up to 4096 24.
    """
    # A static width per bucket bounds how many shapes are compiled or planned for.
    octave = max(length - 1, 1).bit_length()
    step = max(SMALLEST_WIDTH, 1 << max(octave - 3, 0))
    return -(-max(length, 1) // step) * step


@dataclass(frozen=True)
class Batch:
    """b pairs as 2b rows: 0..b-1 are prompt + chosen, b..2b-1 prompt + rejected, padded right."""

    tokens: Int32s
    """Token ids, (2b, t)."""
    prompt_lengths: Int32s
    """Tokens of the prompt that both sides share, (2b,); the second half repeats the first."""
    lengths: Int32s
    """Tokens of prompt and completion, (2b,)."""
    rows: Int64s
    """Positions of the pairs in the data set, (b,)."""
    degraded: "Degraded | None" = None
    """Variants of the completions, for a loss that reads them."""

    @property
    def pairs(self) -> int:
        """b, the number of pairs."""
        return len(self.rows)

    @property
    def width(self) -> int:
        """t, the padded width."""
        return self.tokens.shape[1]

    @cached_property
    def num_tokens(self) -> int:
        """Tokens that are not padding, prompts counted on both sides."""
        return int(self.lengths.sum())

    def completion_mask(self) -> npt.NDArray[np.float32]:
        """1 at completion tokens, 0 at prompt and padding: (2b, t).

        The logits that predict the token at position i are those at i − 1.
        """
        position = np.arange(self.width)
        mask = (position >= self.prompt_lengths[:, None]) & (position < self.lengths[:, None])
        return mask.astype(np.float32)

    def trimmed(self) -> "Batch":
        """The same batch, as wide as its longest row."""
        return dataclasses.replace(self, tokens=self.tokens[:, : int(self.lengths.max())])

    def completion_lengths(self) -> Int32s:
        """|y|, the scored tokens of each completion: (2b,)."""
        return self.lengths - self.prompt_lengths


@dataclass(frozen=True)
class Degraded:
    """Variants of a batch's 2b completions, of which parts were removed."""

    batch: Batch
    levels: Int64s
    """How much of each was, from 0 for nothing: (2b,)."""


def collate(
    data: Sequence[TokenisedPair], indices: Sequence[int] | Int64s, width: int | None = None
) -> Batch:
    """The pairs at `indices` as one batch, padded to `width` or to the bucket of the longest.

    Raises ValueError where `width` is too small or there are no indices.
    """
    pairs = [data[int(i)] for i in indices]
    longest = max(pair.length for pair in pairs)
    width = bucket_width(longest) if width is None else width
    if width < longest:
        raise ValueError(f"width is {width}, expected at least {longest}, the longest row")
    sides = [(p.prompt, p.chosen) for p in pairs] + [(p.prompt, p.rejected) for p in pairs]
    tokens = np.full((len(sides), width), PAD_ID, np.int32)
    for row, (prompt, completion) in zip(tokens, sides, strict=True):
        row[: len(prompt)] = prompt
        row[len(prompt) : len(prompt) + len(completion)] = completion
    return Batch(
        tokens=tokens,
        prompt_lengths=np.array([len(prompt) for prompt, _ in sides], np.int32),
        lengths=np.array([len(prompt) + len(c) for prompt, c in sides], np.int32),
        rows=np.asarray(indices, np.int64),
    )
