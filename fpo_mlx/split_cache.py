"""Key/value caches that hand a prompt's keys and values to its completions, differentiably.

mlx-lm's models take a cache per block; these two never write in place. What a block reads from
another pass (`given`) and leaves for one (`made`) is explicit, so that a checkpoint can pass it on.
"""

from typing import Any

import mlx.core as mx

from fpo_core.packing import Split
from fpo_mlx import ops

Arrays = tuple[mx.array, ...]


class SplitCache:
    """What a block reads from another pass, and what it leaves for one; nothing by default."""

    def __init__(self, given: Arrays = ()) -> None:
        self.given = given
        self.made: Arrays = ()


class PromptCache(SplitCache):
    """Of one block in the pass over prompts: keeps their keys and values."""

    offset = 0

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Arrays:
        """Keep them: (b, heads, p, d) each."""
        self.made = (keys, values)
        return self.made


class CompletionCache(SplitCache):
    """Of one block in the pass over completions: puts the prompts' keys and values before theirs.

    Rows are 2b: chosen, then rejected, each half in the order of the b prompts.
    """

    def __init__(self, prompt: PromptCache, split: Split, axes: int) -> None:
        super().__init__(prompt.made)
        self.offset = mx.array(split.prompt_lengths)
        self._split, self._axes = split, axes

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Arrays:
        """(2b, heads, r, d) each -> (2b, heads, p + r, d) each."""
        pairs = zip(self.given, (keys, values), strict=True)
        joined = [mx.concatenate([mx.concatenate([old, old]), new], axis=2) for old, new in pairs]
        return joined[0], joined[1]

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> Any:
        """What mlx-lm asks a cache for: (2b, 1, r, p + r) booleans, 1 repeated `axes` times."""
        del n, return_array
        mask = self._split.visible(window_size)
        shape = (len(mask), *[1] * self._axes, *mask.shape[2:])
        return ops.asarray(mask.reshape(shape), self.offset)
