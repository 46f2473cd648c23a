"""Finding a pair's record by its key, in 16 bytes of memory a row."""

from typing import Any

import numpy as np

_HEAD = 8
"""Bytes of a key that are kept; the rest is compared on disk."""


class KeyIndex:
    """Where the record of each key lies in a list of shards."""

    def __init__(self, shards: list[dict[str, np.ndarray]]) -> None:
        self._keys = [shard["key"] for shard in shards]
        sizes = [len(keys) for keys in self._keys]
        heads = [_heads(np.asarray(keys)) for keys in self._keys]
        flat = np.concatenate(heads) if heads else np.empty(0, np.uint64)
        order = np.argsort(flat, kind="stable")
        self._heads = flat[order]
        self._rows = np.concatenate([np.arange(n) for n in sizes] or [[]]).astype(np.int32)[order]
        self._shards = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)[order]

    def __len__(self) -> int:
        return len(self._heads)

    def __contains__(self, key: bytes) -> bool:
        return self.find(key) is not None

    def find(self, key: bytes) -> tuple[int, int] | None:
        """The number of the shard and the row in it, or None."""
        wanted: Any = np.frombuffer(key, np.uint8)
        head = _heads(wanted[None])[0]
        at = int(np.searchsorted(self._heads, head))
        while at < len(self._heads) and self._heads[at] == head:
            shard, row = int(self._shards[at]), int(self._rows[at])
            if (self._keys[shard][row] == wanted).all():
                return shard, row
            at += 1
        return None


def _heads(keys: np.ndarray) -> np.ndarray:
    """(n, bytes) -> (n,) the first bytes of each as one number."""
    return np.ascontiguousarray(keys[:, :_HEAD]).view(np.uint64)[:, 0]
