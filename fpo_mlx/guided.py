"""Values of candidate tokens while mlx-lm samples: a key/value cache of each value's own."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_map
from mlx_lm.models.cache import make_prompt_cache

from fpo_mlx.models import check_states


class ValueReader:
    """Reads one value function along one completion."""

    def __init__(
        self,
        model: nn.Module,
        body: nn.Module,
        weighted: Callable[[], AbstractContextManager[Any]],
        head: mx.array,
    ) -> None:
        """`weighted` puts the value's adapter in place, `head` is (1, d)."""
        self._body, self._weighted, self._head = body, weighted, head
        self._cache = make_prompt_cache(model)

    def __call__(self, new: mx.array, candidates: mx.array) -> mx.array:
        """V of all tokens so far, `new` (t,) the latest, and each of candidates (1, k), (1, k)."""
        with self._weighted():
            read = self._body(new[None], cache=self._cache)
            check_states(read, self._head.shape[1])
            rows = [_repeated(layer, candidates.shape[1]) for layer in self._cache]
            states = self._body(candidates[0][:, None], cache=rows)[:, -1]
        return (states.astype(mx.float32) @ self._head.T).T


def _repeated(cache: Any, count: int) -> Any:
    """A copy of the cache of one sequence, with it in each of `count` rows."""
    copied = copy.copy(cache)
    for name, value in vars(cache).items():
        setattr(copied, name, tree_map(lambda x: _rows(x, count), value))
    return copied


def _rows(x: Any, count: int) -> Any:
    return mx.repeat(x, count, axis=0) if isinstance(x, mx.array) and x.ndim > 1 else x
