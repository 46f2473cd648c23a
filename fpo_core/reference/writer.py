"""Writing a reference store shard by shard, so that an interrupted pass can continue."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fpo_core.errors import StoreError
from fpo_core.io.atomic import replacing
from fpo_core.io.digests import describe
from fpo_core.io.leftovers import remove
from fpo_core.io.lock import locked
from fpo_core.io.writer import write_arrays
from fpo_core.loss.scores import Scores
from fpo_core.reference.key import StoreKey
from fpo_core.reference.manifest import FORMAT, MANIFEST, VERSION, read_manifest, write_manifest
from fpo_core.reference.shards import Shard, open_shards


class StoreWriter:
    """Appends pairs to a store folder, with at most one shard in memory.

    A full shard is written first, then the manifest that lists it: a crash loses at most one
    shard's rows. Other processes may append to the same folder: what they wrote is taken over,
    whoever comes first, and no pair is stored twice.
    """

    def __init__(
        self,
        folder: Path,
        key: StoreKey,
        *,
        cap: int,
        dtype: str,
        rows_per_shard: int,
        widths: Sequence[int] = (),
        made_with: dict[str, Any],
        shards: list[dict[str, Any]] | None = None,
        damaged: Sequence[str] = (),
    ) -> None:
        """`shards` are the manifest's entries so far, `damaged` files to be dropped from it."""
        self.folder, self.rows_per_shard = folder, rows_per_shard
        self._damaged = frozenset(damaged)
        self.cap, self.dtype = cap, np.dtype(dtype)
        self._starts = np.cumsum(widths)[:-1]
        self._manifest = {
            "format": FORMAT,
            "version": VERSION,
            "key": key.to_mapping(),
            "feature_cap": cap,
            "feature_dtype": dtype,
            "made_with": made_with,
            "shards": [dict(entry) for entry in shards or []],
        }
        self._rows: list[dict[str, np.ndarray]] = []

    def add(self, keys: list[bytes], scores: Scores) -> None:
        """Store the NumPy scores of len(keys) pairs: (2b,) vectors, chosen then rejected.

        Raises StoreError where a value is not finite or overflows the store's precision.
        """
        pairs = len(keys)
        for i, key in enumerate(keys):
            sides = [self._completion(scores, row) for row in (i, pairs + i)]
            record = {name: np.stack([side[name] for side in sides]) for name in _COLUMNS}
            record["key"] = np.frombuffer(key, np.uint8)
            record["indices"] = np.concatenate([side["indices"] for side in sides])
            record["values"] = np.concatenate([side["values"] for side in sides])
            self._rows.append(record)
        while len(self._rows) >= self.rows_per_shard:
            self._flush(self.rows_per_shard)

    def close(self) -> None:
        """Write the remaining rows, and the manifest even where there are none."""
        self._flush(len(self._rows))

    def _completion(self, scores: Scores, row: int) -> dict[str, np.ndarray]:
        if not np.isfinite(scores.logps[row]):
            raise StoreError(
                "the reference gives a log-probability that is not finite: set dtype to float32"
            )
        indices, values, nonzeros = self._sparse(scores.pooled, row)
        counted = 0 if scores.feature_lengths is None else scores.feature_lengths[row]
        return {
            "logps": np.float32(scores.logps[row]),
            "lengths": np.int32(scores.lengths[row]),
            "feature_lengths": np.int32(counted),
            "nonzeros": np.int32(nonzeros),
            "stored": np.int32(len(indices)),
            "indices": indices,
            "values": values,
        }  # pyright: ignore[reportReturnType]

    def _sparse(self, pooled: np.ndarray | None, row: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Indices and values of a row's largest non-zeros up to the cap, and how many it has.

        The cap holds for each autoencoder separately.
        """
        if pooled is None:
            return np.empty(0, np.int32), np.empty(0, self.dtype), 0
        fired = np.flatnonzero(pooled[row])
        # Scales differ between autoencoders: under a common cap one could displace another.
        parts = np.split(fired, np.searchsorted(fired, self._starts))
        largest = [part[_largest_first(pooled[row][part])][: self.cap] for part in parts]
        indices = np.concatenate(largest).astype(np.int32)
        with np.errstate(over="ignore"):
            values = pooled[row][indices].astype(self.dtype)
        if not np.isfinite(values).all():
            raise StoreError(
                f"a reference feature overflows {self.dtype.name}: set feature_dtype to float32, "
                "and check that the autoencoder belongs to this model"
            )
        return indices, values, len(fired)

    def _flush(self, count: int) -> None:
        rows, self._rows = self._rows[:count], self._rows[count:]
        # Held for one shard only: a pass of hours keeps nobody else out.
        with locked(self.folder, "reference", wait=_PATIENCE):
            stored = self._take_over()
            rows = [row for row in rows if row["key"].tobytes() not in stored]
            if rows:
                self._shards.append(self._write_shard(_columns(rows)))
            for entry in self._shards:
                if "sha256" not in entry:  # written before hashes were kept
                    entry.update(describe(self.folder / entry["file"]))
            write_manifest(self.folder, self._manifest)
            for name in self._damaged:
                remove(self.folder / name)

    @property
    def _shards(self) -> list[dict[str, Any]]:
        return self._manifest["shards"]

    def _take_over(self) -> set[bytes]:
        """List the shards that others appended meanwhile; the keys of their pairs."""
        if not (self.folder / MANIFEST).exists():
            return set()
        theirs = read_manifest(self.folder)
        for name in ("key", "feature_cap", "feature_dtype"):
            if theirs[name] != self._manifest[name]:
                raise StoreError(
                    f"another process began the reference store {self.folder} with another "
                    f"{name.replace('_', ' ')}: name another reference folder"
                )
        known = {entry["file"] for entry in self._shards} | self._damaged
        new = [entry for entry in theirs["shards"] if entry["file"] not in known]
        self._shards.extend(new)
        _, shards = open_shards(self.folder, new, None)
        return {key.tobytes() for shard in shards for key in shard["key"]}

    def _write_shard(self, columns: Shard) -> dict[str, Any]:
        """Write a shard under a number that none had before; its entry in the manifest."""
        names = [*(entry["file"] for entry in self._shards), *self._damaged]
        number = max((int(re.sub(r"\D", "", name) or 0) for name in names), default=-1) + 1
        name = f"shard-{number:05d}.safetensors"
        with replacing(self.folder / name) as temporary:
            written = write_arrays(temporary, columns)
        return {"file": name, "rows": len(columns["key"]), **written}


def is_store_folder(folder: Path) -> bool:
    """Whether nothing but a store, begun or complete, lies in a folder."""
    if not folder.is_dir():
        return False
    names = (path.name for path in folder.iterdir())
    others = (n for n in names if not (n.startswith((".", "shard-")) or n == MANIFEST))
    return (folder / MANIFEST).is_file() or not any(others)


_PATIENCE = 60.0
"""Seconds to wait while another process writes one shard."""


def _largest_first(values: np.ndarray) -> np.ndarray:
    return np.argsort(-np.abs(values), kind="stable")


_COLUMNS = ("logps", "lengths", "feature_lengths", "nonzeros", "stored")


def _columns(rows: list[dict[str, np.ndarray]]) -> Shard:
    columns = {name: np.stack([row[name] for row in rows]) for name in ("key", *_COLUMNS)}
    columns["offsets"] = np.concatenate([[0], np.cumsum(columns.pop("stored").reshape(-1))])
    for name in ("indices", "values"):
        columns[name] = np.concatenate([row[name] for row in rows])
    # Half the size for autoencoders of up to 65536 features.
    if columns["indices"].max(initial=0) <= np.iinfo(np.uint16).max:
        columns["indices"] = columns["indices"].astype(np.uint16)
    return {name: np.ascontiguousarray(column) for name, column in columns.items()}
