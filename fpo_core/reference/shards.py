"""The shards of a reference store: safetensors files whose arrays fit each other."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fpo_core.errors import StoreError
from fpo_core.io.digests import damages
from fpo_core.io.reader import open_safetensors

Shard = dict[str, Any]
"""The columns of a shard of n pairs: `key` (n, 16); `logps`, `lengths`, `feature_lengths` and
`nonzeros` (n, 2), chosen then rejected; and the non-zeros of all 2n sides in the flat `indices` and
`values`, those of side s at `offsets[s]` to `offsets[s + 1]`. These two stay in their file.
"""
_PER_SIDE = {"logps": "f", "lengths": "i", "feature_lengths": "i", "nonzeros": "i"}
_FLAT = {"offsets": "i", "indices": "iu", "values": "f"}


def open_shards(
    folder: Path, entries: Sequence[dict[str, Any]], warn: Callable[[str], None] | None
) -> tuple[list[dict[str, Any]], list[Shard]]:
    """The manifest's entries whose shards are sound, and these.

    Damaged ones are named to `warn`; without it, the first raises StoreError.
    """
    hashed = {entry["file"]: entry for entry in entries if "sha256" in entry}
    reasons = {damage.name: damage.reason for damage in damages(folder, hashed)}
    sound: list[dict[str, Any]] = []
    shards: list[Shard] = []
    for entry in entries:
        try:
            shards.append(_open(folder / entry["file"], entry, reasons.get(entry["file"])))
            sound.append(entry)
        except StoreError as error:
            if warn is None:
                raise StoreError(f"{error}: delete the store and build it again") from None
            warn(f"{error}: its pairs are computed anew")
    return sound, shards


def _open(path: Path, entry: Mapping[str, Any], reason: str | None) -> Shard:
    if reason is not None:
        raise StoreError(f"the reference store's {path} {reason}")
    file = open_safetensors(path, StoreError)
    shard: Shard = {name: file.stored(name) for name in file.entries}
    fault = _fault(shard, entry["rows"])
    if fault is not None:
        raise StoreError(f"{path} {fault}")
    return shard | {name: file.array(name) for name in ("indices", "values")}


def _fault(shard: Shard, rows: Any) -> str | None:
    """What is wrong with a shard's arrays, for the sake of stores from before hashes were kept."""
    shapes: dict[str, tuple[int, ...]] = {"key": (rows, 16), "offsets": (2 * rows + 1,)}
    shapes |= dict.fromkeys(_PER_SIDE, (rows, 2))
    kinds = {"key": "u", **_PER_SIDE, **_FLAT}
    for name, kind in kinds.items():
        array = shard.get(name)
        if array is None:
            return f"lacks {name}"
        if array.shape != shapes.get(name, array.shape) or array.dtype.kind not in kind:
            return f"holds {name} as {array.dtype} of shape {array.shape}, for {rows} pairs"
    if not np.isfinite(shard["logps"]).all() or not np.isfinite(shard["values"]).all():
        return "holds a number that is not finite"
    return None if _offsets_fit(shard) else "has offsets that do not fit its features"


def _offsets_fit(shard: Shard) -> bool:
    offsets, count = shard["offsets"], len(shard["indices"])
    whole = offsets[0] == 0 and offsets[-1] == count == len(shard["values"])
    return whole and bool((np.diff(offsets) >= 0).all()) and shard["indices"].min(initial=0) >= 0
