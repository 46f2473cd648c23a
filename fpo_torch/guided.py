"""Values of candidate tokens while transformers samples: a key/value cache of each value's own."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

_ROWS = 256
"""Candidates evaluated at once, of all completions together: each holds a copy of its cache."""


class ValueReader:
    """Reads one value function along the completions of a batch that is padded on the left."""

    def __init__(
        self,
        body: nn.Module,
        weighted: Callable[[], AbstractContextManager[Any]],
        head: Tensor,
        mask: Tensor,
    ) -> None:
        """`weighted` puts the value's adapter in place, `head` is (1, d), `mask` (n, t)."""
        self._body, self._weighted, self._head, self._mask = body, weighted, head, mask
        self._cache: Any = None
        self._read = 0

    def __call__(self, ids: Tensor, candidates: Tensor) -> Tensor:
        """V of ids (n, t) followed by each of the candidates (n, k), (n, k)."""
        grown = ids.new_ones(len(ids), ids.shape[1] - self._mask.shape[1])
        mask = torch.cat([self._mask, grown], 1)
        places = (mask.cumsum(-1) - 1).clamp(min=0)
        with self._weighted():
            new = slice(self._read, None)
            self._cache = self._run(ids[:, new], mask, places[:, new], self._cache)[1]
            self._read = ids.shape[1]
            size = max(1, _ROWS // len(ids))
            parts = [
                self._values(part, mask, places[:, -1:] + 1) for part in candidates.split(size, 1)
            ]
        return torch.cat(parts, 1)

    def _values(self, candidates: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        n, k = candidates.shape
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(k)
        mask = torch.cat([mask, mask.new_ones(n, 1)], 1)
        mask, places = (array.repeat_interleave(k, 0) for array in (mask, places))
        states, _ = self._run(candidates.reshape(-1, 1), mask, places, cache)
        return (states[:, -1].float() @ self._head.T).reshape(n, k)

    def _run(self, ids: Tensor, mask: Tensor, places: Tensor, cache: Any) -> tuple[Tensor, Any]:
        out = self._body(
            input_ids=ids,
            attention_mask=mask,
            position_ids=places,
            past_key_values=cache,
            use_cache=True,
        )
        return out.last_hidden_state, out.past_key_values
