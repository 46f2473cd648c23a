"""The cache of tokenised pairs: one folder per (data, tokenizer, settings), rebuilt if damaged."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fpo_core.data.report import DataReport
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.errors import DataError, WriteError
from fpo_core.io.atomic import write_folder, write_json
from fpo_core.io.digests import damages, describe, seal_holds, sealed
from fpo_core.io.lock import locked_by
from fpo_core.io.regular import read_json_object

MANIFEST = "manifest.json"
_PATIENCE = 600.0
"""Seconds to wait while another process tokenises the same rows."""

Rows = tuple[dict[str, TokenisedPairs], DataReport]


def cache_root(setting: str | None) -> Path:
    """The folder of all caches: the setting, else $FPO_CACHE, else ~/.cache/fpo-mlx."""
    return Path(setting or os.environ.get("FPO_CACHE") or "~/.cache/fpo-mlx").expanduser() / "pairs"


def fingerprint(key: Mapping[str, Any]) -> str:
    """A folder name for `key`, the JSON values that what is cached in it depends on."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]


def open_cached(folder: Path) -> Rows | None:
    """The splits and the report in `folder`; None where it is absent, incomplete or damaged."""
    try:
        manifest = read_json_object(folder / MANIFEST, DataError)
        # A folder from before hashes were kept is made anew like a damaged one.
        if not seal_holds(manifest) or damages(folder, manifest["files"]):
            return None
        report = DataReport.from_mapping(manifest["report"], cached=True)
        splits = {name: TokenisedPairs.open(folder, name) for name in report.splits}
    except (KeyError, TypeError, AttributeError, DataError):
        return None
    complete = all(len(rows) == report.splits[name].kept for name, rows in splits.items())
    return (splits, report) if complete else None


def build(folder: Path, key: Mapping[str, Any], write: Callable[[Path], DataReport]) -> Rows:
    """Let `write` fill the folder, whole or not at all, add the manifest, and open it.

    Where another process is at it or has done it meanwhile, its rows are taken.
    """
    reports: list[DataReport] = []

    def fill(temporary: Path) -> None:
        reports.append(write(temporary))
        files = {path.name: describe(path) for path in sorted(temporary.iterdir())}
        manifest = {"key": dict(key), "report": reports[0].to_mapping(), "files": files}
        write_json(temporary / MANIFEST, sealed(manifest))

    try:
        with locked_by(folder.with_name(f".{folder.name}.lock"), "cache", _PATIENCE):
            rows = open_cached(folder)
            if rows is None:
                write_folder(folder, fill)
                rows = open_cached(folder)
    except WriteError as error:
        raise DataError(
            f"tokenised rows cannot be written to {folder.parent} ({error.reason}): set cache to a "
            "folder with free space"
        ) from None
    if rows is None:
        raise DataError(f"{folder} changed while it was read: start again")
    return rows[0], reports[0] if reports else rows[1]
