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

MANIFEST = "manifest.json"

Rows = tuple[dict[str, TokenisedPairs], DataReport]


def cache_root(setting: str | None) -> Path:
    """The folder of all caches: the setting, else $FPO_CACHE, else ~/.cache/fpo-mlx."""
    return Path(setting or os.environ.get("FPO_CACHE") or "~/.cache/fpo-mlx").expanduser() / "pairs"


def fingerprint(key: Mapping[str, Any]) -> str:
    """A folder name for `key`, the JSON values that the tokenised pairs depend on."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]


def open_cached(folder: Path) -> Rows | None:
    """The splits and the report in `folder`; None where it is absent, incomplete or damaged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        report = DataReport.from_mapping(manifest["report"], cached=True)
        splits = {name: TokenisedPairs.open(folder, name) for name in report.splits}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DataError):
        return None
    complete = all(len(rows) == report.splits[name].kept for name, rows in splits.items())
    return (splits, report) if complete else None


def build(folder: Path, key: Mapping[str, Any], write: Callable[[Path], DataReport]) -> Rows:
    """Let `write` fill the folder, whole or not at all, add the manifest, and open it."""
    reports: list[DataReport] = []

    def fill(temporary: Path) -> None:
        reports.append(write(temporary))
        write_json(temporary / MANIFEST, {"key": dict(key), "report": reports[0].to_mapping()})

    try:
        write_folder(folder, fill)
    except WriteError as error:
        raise DataError(
            f"tokenised rows cannot be written to {folder.parent} ({error.reason}): set cache to a "
            "folder with free space"
        ) from None
    rows = open_cached(folder)
    if rows is None:
        raise DataError(f"{folder} changed while it was read: start again")
    return rows[0], reports[0]
