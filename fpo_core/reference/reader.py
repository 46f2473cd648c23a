"""Reading a reference store: shards, looked up by the key of each pair."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fpo_core.errors import StoreError
from fpo_core.loss.dense import ReferenceBatch
from fpo_core.reference.index import KeyIndex
from fpo_core.reference.key import StoreKey
from fpo_core.reference.manifest import MANIFEST, read_manifest
from fpo_core.reference.shards import Shard, open_shards


@dataclass(frozen=True)
class ReferenceStore:
    """An opened store. Pairs are looked up by key, so it may hold more than a run needs."""

    folder: Path
    key: StoreKey
    manifest: dict[str, Any]
    """Without the shards that are damaged."""
    shards: list[Shard]
    index: KeyIndex
    damaged: tuple[str, ...] = ()
    """Files of the shards that are damaged."""

    @classmethod
    def open(cls, folder: Path, warn: Callable[[str], None] | None = None) -> "ReferenceStore":
        """Open a store, checking every byte of it against the manifest's hashes.

        Raises StoreError where it is absent, damaged or of another version. With `warn`, damaged
        shards are named to it and left out instead: their pairs count as missing.
        """
        manifest = read_manifest(folder, warn)
        entries, shards = open_shards(folder, manifest["shards"], warn)
        names = {entry["file"] for entry in entries}
        damaged = tuple(e["file"] for e in manifest["shards"] if e["file"] not in names)
        manifest |= {"shards": entries}
        key = StoreKey(**manifest["key"])
        return cls(folder, key, manifest, shards, KeyIndex(shards), damaged)

    @staticmethod
    def key_of(folder: Path) -> StoreKey:
        """The key of a store by its manifest alone. Raises StoreError as `open`."""
        return StoreKey(**read_manifest(folder)["key"])

    @staticmethod
    def made_with(folder: Path) -> dict[str, Any]:
        """Version, backend and precision that a store was begun with. Raises StoreError."""
        return read_manifest(folder)["made_with"]

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether `folder` holds a store, complete or not."""
        return (folder / MANIFEST).is_file()

    def missing(self, keys: Iterable[bytes]) -> list[int]:
        """Positions of the keys that the store lacks; the first of equal keys."""
        absent: dict[bytes, int] = {}
        for position, key in enumerate(keys):
            if key not in self.index:
                absent.setdefault(key, position)
        return list(absent.values())

    def batch(self, keys: list[bytes], d_sae: int | None) -> ReferenceBatch:
        """The reference of b pairs: log-probabilities (2b,), pooled features (2b, d_sae) or None.

        Rows are chosen, then rejected. Raises StoreError for a key that is not stored.
        """
        rows = self._sides(keys)
        logps = np.array([shard["logps"][i, side] for shard, i, side in rows], np.float32)
        if d_sae is None:
            return ReferenceBatch(logps)
        pooled = np.zeros((len(rows), d_sae), np.float32)
        for n, (shard, i, side) in enumerate(rows):
            start, end = _extent(shard, i, side)
            indices = shard["indices"][start:end]
            if len(indices) and indices.max() >= d_sae:
                raise StoreError(
                    f"the reference store {self.folder} holds feature {indices.max()}, expected "
                    f"those of an autoencoder with {d_sae}: delete the store and build it again"
                )
            pooled[n, indices] = shard["values"][start:end]
        return ReferenceBatch(logps, pooled, self.truncated(keys).astype(np.float32))

    def truncated(self, keys: list[bytes]) -> np.ndarray:
        """(2b,) whether the cap cut off part of c̄_ref, of chosen, then rejected, of b pairs."""
        return np.array([_cut(*side) for side in self._sides(keys)], bool)

    def _sides(self, keys: list[bytes]) -> list[tuple[Shard, int, int]]:
        records = [self._find(key) for key in keys]
        return [(shard, i, side) for side in (0, 1) for shard, i in records]

    def _find(self, key: bytes) -> tuple[Shard, int]:
        position = self.index.find(key)
        if position is None:
            raise StoreError(
                f"the reference store {self.folder} lacks a pair of this data, expected all: "
                "build the reference with the same data and settings"
            )
        number, row = position
        return self.shards[number], row


def _extent(shard: Shard, i: int, side: int) -> tuple[int, int]:
    """Where a row's non-zeros begin and end in the flat arrays."""
    start, end = shard["offsets"][2 * i + side : 2 * i + side + 2]
    return int(start), int(end)


def _cut(shard: Shard, i: int, side: int) -> bool:
    start, end = _extent(shard, i, side)
    return bool(shard["nonzeros"][i, side] > end - start)
