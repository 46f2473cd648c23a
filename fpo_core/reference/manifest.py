"""A store's manifest.json: its key, how it was made, its shards with their hashes, and its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fpo_core.errors import StoreError
from fpo_core.io.atomic import write_json
from fpo_core.io.digests import is_plain_name, seal_holds, sealed
from fpo_core.io.regular import read_json_object
from fpo_core.reference.key import StoreKey

FORMAT = "fpo-reference"
VERSION = 2
MANIFEST = "manifest.json"
_AGAIN = "delete the store and build it again"


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest with the hash of all that it says."""
    write_json(folder / MANIFEST, sealed(manifest))


def read_manifest(folder: Path, warn: Callable[[str], None] | None = None) -> dict[str, Any]:
    """A store's manifest. Raises StoreError where it is absent, damaged or of another version.

    One from before hashes were kept passes, with a word to `warn`.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise StoreError(f"{folder} holds no reference store: build the reference first")
    manifest = read_json_object(path, lambda text: StoreError(f"{text}: {_AGAIN}"))
    if manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        raise StoreError(
            f"{path} says format {manifest.get('format')!r} version {manifest.get('version')!r}, "
            f"expected {FORMAT!r} version {VERSION}: build the store again"
        )
    holds = seal_holds(manifest)
    if holds is False:
        raise StoreError(f"{path} is not what was written (SHA-256 differs): {_AGAIN}")
    try:
        StoreKey(**manifest["key"])
        names = [entry["file"] for entry in manifest["shards"]]
        regular = all(map(is_plain_name, names)) and len({*names}) == len(names)
        counted = all(type(entry["rows"]) is int for entry in manifest["shards"])
        hashed = holds is None or all("sha256" in entry for entry in manifest["shards"])
        if not (regular and counted and hashed and _is_regular(manifest)):
            raise ValueError("shards")
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} is incomplete ({error}): {_AGAIN}") from None
    if holds is None and warn is not None and manifest["shards"]:
        warn(f"the reference store {folder} is from before 0.2 and has no hashes to check it by")
    return manifest


def _is_regular(manifest: dict[str, Any]) -> bool:
    """Whether what an extension takes over is of the right kind."""
    cap, dtype = manifest["feature_cap"], manifest["feature_dtype"]
    made_with = manifest["made_with"]
    texts = (value is None or isinstance(value, str) for value in manifest["key"].values())
    known = type(cap) is int and dtype in ("float16", "float32") and isinstance(made_with, dict)
    return known and all(texts)
