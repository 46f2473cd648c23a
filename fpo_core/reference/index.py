"""Finding a pair's record by its key, with 16 bytes of memory per row."""

from typing import Any

import numpy as np

_HEAD = 8
"""Bytes of a key held in memory; a match is confirmed by comparing the rest on disk."""


class KeyIndex:
    """Maps keys to (shard, row) in a list of shards, by binary search."""

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
        """Index of the shard and row within it, or None."""
        wanted: Any = np.frombuffer(key, np.uint8)
        head = _heads(wanted[None])[0]
        at = int(np.searchsorted(self._heads, head))
        # Different keys may have equal heads: compare all of them.
        while at < len(self._heads) and self._heads[at] == head:
            shard, row = int(self._shards[at]), int(self._rows[at])
            if (self._keys[shard][row] == wanted).all():
                return shard, row
            at += 1
        return None


def _heads(keys: np.ndarray) -> np.ndarray:
    """The first bytes of each key as one integer: (n, bytes) -> (n,) uint64."""
    return np.ascontiguousarray(keys[:, :_HEAD]).view(np.uint64)[:, 0]
