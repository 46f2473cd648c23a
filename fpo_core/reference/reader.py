"""Reading a reference store: memory-mapped shards, looked up by the key of each pair."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fpo_core.errors import StoreError
from fpo_core.io.reader import open_safetensors
from fpo_core.loss.dense import ReferenceBatch
from fpo_core.reference.index import KeyIndex
from fpo_core.reference.key import COLUMNS, FORMAT, MANIFEST, VERSION, StoreKey


@dataclass(frozen=True)
class ReferenceStore:
    """An opened store. Pairs are looked up by key, so it may hold more than a run needs."""

    folder: Path
    key: StoreKey
    manifest: dict[str, Any]
    shards: list[dict[str, np.ndarray]]
    index: KeyIndex

    @classmethod
    def open(cls, folder: Path) -> "ReferenceStore":
        """Open a store. Raises StoreError where it is absent, damaged or of another version."""
        manifest = _read_manifest(folder)
        shards = [_open_shard(folder / entry["file"], entry) for entry in manifest["shards"]]
        return cls(folder, StoreKey(**manifest["key"]), manifest, shards, KeyIndex(shards))

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
        records = [self._find(key) for key in keys]
        rows = [(shard, i, side) for side in (0, 1) for shard, i in records]
        logps = np.array([shard["logps"][i, side] for shard, i, side in rows], np.float32)
        if d_sae is None:
            return ReferenceBatch(logps)
        # A row's non-zeros are at offsets[2i + side] to the next offset of the flat arrays.
        pooled = np.zeros((len(rows), d_sae), np.float32)
        truncated = np.zeros(len(rows), np.float32)
        for n, (shard, i, side) in enumerate(rows):
            start, end = shard["offsets"][2 * i + side : 2 * i + side + 2]
            pooled[n, shard["indices"][start:end]] = shard["values"][start:end]
            truncated[n] = shard["nonzeros"][i, side] > end - start
        return ReferenceBatch(logps, pooled, truncated)

    def empty_feature_rows(self, keys: Iterable[bytes]) -> int:
        """How many completions have no token to pool features over (n_D = 0), hence D = 0."""
        records = (self._find(key) for key in keys)
        return int(sum((shard["feature_lengths"][i] == 0).sum() for shard, i in records))

    def _find(self, key: bytes) -> tuple[dict[str, np.ndarray], int]:
        position = self.index.find(key)
        if position is None:
            raise StoreError(
                f"the reference store {self.folder} lacks a pair of this data, expected all: "
                "build the reference with the same data and settings"
            )
        number, row = position
        return self.shards[number], row


def _open_shard(path: Path, entry: dict[str, Any]) -> dict[str, np.ndarray]:
    shard = open_safetensors(path, _damaged).mapped("r")
    missing = [name for name in COLUMNS if name not in shard]
    if missing:
        raise StoreError(f"{path} lacks {missing[0]}: delete the store and build it again")
    if len(shard["key"]) != entry["rows"]:
        raise StoreError(
            f"{path} has {len(shard['key'])} rows, the manifest says {entry['rows']}: "
            "delete the store and build it again"
        )
    return shard


def _damaged(text: str) -> StoreError:
    return StoreError(f"{text}: delete the store and build it again")


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise StoreError(f"{folder} holds no reference store: build the reference first")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest, dict):
            raise ValueError("a list or a bare value")
    except ValueError as error:
        raise StoreError(
            f"{path} is not a JSON object ({error}): delete the store and build it again"
        ) from None
    if manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        raise StoreError(
            f"{path} says format {manifest.get('format')!r} version {manifest.get('version')!r}, "
            f"expected {FORMAT!r} version {VERSION}: build the store again"
        )
    try:
        StoreKey(**manifest["key"])
        [(entry["file"], entry["rows"]) for entry in manifest["shards"]]
    except (KeyError, TypeError) as error:
        raise StoreError(
            f"{path} is incomplete ({error}): delete the store and build it again"
        ) from None
    return manifest
