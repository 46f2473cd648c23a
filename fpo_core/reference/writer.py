"""Writing a reference store shard by shard, so that an interrupted pass can continue."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from fpo_core.errors import StoreError
from fpo_core.io.atomic import write_atomically, write_json
from fpo_core.loss.scores import Scores
from fpo_core.reference.key import FORMAT, MANIFEST, VERSION, StoreKey


class StoreWriter:
    """Appends pairs to a store folder, with at most one shard in memory.

    A full shard is written first, then the manifest that lists it: a crash loses at most one
    shard's rows.
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
    ) -> None:
        self.folder, self.rows_per_shard = folder, rows_per_shard
        self.cap, self.dtype = cap, np.dtype(dtype)
        self._starts = np.cumsum(widths)[:-1]
        self._manifest = {
            "format": FORMAT,
            "version": VERSION,
            "key": key.to_mapping(),
            "feature_cap": cap,
            "feature_dtype": dtype,
            "made_with": made_with,
            "shards": list(shards or []),
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
        if rows:
            name = f"shard-{len(self._manifest['shards']):05d}.safetensors"
            arrays = _columns(rows)
            write_atomically(self.folder / name, lambda path: save_file(arrays, path))
            self._manifest["shards"].append({"file": name, "rows": len(rows)})
        write_json(self.folder / MANIFEST, self._manifest)


def _largest_first(values: np.ndarray) -> np.ndarray:
    return np.argsort(-np.abs(values), kind="stable")


_COLUMNS = ("logps", "lengths", "feature_lengths", "nonzeros", "stored")


def _columns(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    columns = {name: np.stack([row[name] for row in rows]) for name in ("key", *_COLUMNS)}
    columns["offsets"] = np.concatenate([[0], np.cumsum(columns.pop("stored").reshape(-1))])
    for name in ("indices", "values"):
        columns[name] = np.concatenate([row[name] for row in rows])
    # Half the size for autoencoders of up to 65536 features.
    if columns["indices"].max(initial=0) <= np.iinfo(np.uint16).max:
        columns["indices"] = columns["indices"].astype(np.uint16)
    return {name: np.ascontiguousarray(column) for name, column in columns.items()}
