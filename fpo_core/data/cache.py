"""The cache of tokenised pairs: one folder per (data, tokenizer, settings), rebuilt if damaged."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fpo_core.data.report import DataReport
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.errors import DataError
from fpo_core.io.atomic import write_json

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
    """Let `write` fill a temporary folder, add the manifest, rename it to `folder`, and open it.

    Where another process has finished the same folder meanwhile, that one is used.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        report = write(temporary)
        write_json(temporary / MANIFEST, {"key": dict(key), "report": report.to_mapping()})
        if open_cached(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
    except OSError as error:
        raise DataError(
            f"tokenised rows cannot be written to {folder.parent} ({error.strerror or error}): "
            "set cache to a folder with free space"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    rows = open_cached(folder)
    if rows is None:
        raise DataError(f"{folder} changed while it was read: start again")
    return rows[0], report
