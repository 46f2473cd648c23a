"""The folder of a value function: an adapter, its head, and what they were made from.

`fpo_value.json` is sealed and holds the hashes of the other files; the adapter's own are in its
adapter_config.json.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fpo_core.adapters.base import write_base
from fpo_core.adapters.lora import Adapter
from fpo_core.adapters.reader import VALUE_FILE, load_adapter
from fpo_core.adapters.writer import save_adapter
from fpo_core.errors import ModelError
from fpo_core.io.atomic import write_json
from fpo_core.io.digests import damages, seal_holds, sealed
from fpo_core.io.reader import open_safetensors
from fpo_core.io.regular import read_text
from fpo_core.io.writer import write_arrays
from fpo_core.loss.values import VALUE_HEAD
from fpo_core.models.folder import ModelFolder

HEAD_FILE = "value_head.safetensors"
_FORMAT, _VERSION = "fpo-value", 1


@dataclass(frozen=True)
class StoredValue:
    """A value function as its folder holds it."""

    adapter: Adapter
    head: np.ndarray
    """(1, d): V = mean + head · h, h the state behind the final norm, in the reward's unit."""
    facts: dict[str, Any]
    """The judge, the rewards' `mean`, and other words of `fpo_value.json`."""


def save_value(folder: Path, value: StoredValue, *, base_model: str, model: ModelFolder) -> None:
    """Write the folder's files; `write_into_folder` makes that whole or nothing."""
    save_adapter(folder, value.adapter, base_model=base_model, layout=model.layout)
    write_base(folder, model)
    head = {VALUE_HEAD: value.head.astype(np.float32)}
    files = {HEAD_FILE: write_arrays(folder / HEAD_FILE, head)}
    words = {"format": _FORMAT, "version": _VERSION, "files": files, **value.facts}
    write_json(folder / VALUE_FILE, sealed(words))


def load_value(folder: Path, model: ModelFolder) -> StoredValue:
    """The value function of a folder. Raises ModelError where it is none, or damaged."""
    facts = _facts(folder)
    for damage in damages(folder, facts["files"]):
        raise ModelError(f"{folder}/{damage}: the value is damaged, take a sound copy")
    file = open_safetensors(folder / HEAD_FILE, ModelError)
    if VALUE_HEAD not in file.entries:
        raise ModelError(f"{file.path} holds no {VALUE_HEAD}: the value is damaged")
    head = np.asarray(file.rows(VALUE_HEAD), np.float32)
    if head.ndim != 2 or len(head) != 1 or not np.isfinite(head).all():
        raise ModelError(
            f"{file.path} holds a head of shape {head.shape}, expected finite numbers, (1, "
            "hidden): the value is damaged"
        )
    return StoredValue(load_adapter(folder, model.layers, of_value=True), head, facts)


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / VALUE_FILE
    if not path.is_file():
        raise ModelError(
            f"value is {folder}, which holds no {VALUE_FILE}: give a folder that training a value "
            "wrote"
        )
    try:
        facts = json.loads(read_text(path, ModelError))
    except ValueError:
        facts = None
    if not isinstance(facts, Mapping) or facts.get("format") != _FORMAT or not seal_holds(facts):
        raise ModelError(f"{path} is not what was written: the value is damaged, take a sound copy")
    if facts.get("version") != _VERSION or HEAD_FILE not in facts.get("files", {}):
        raise ModelError(
            f"{path} is of version {facts.get('version')!r}, expected {_VERSION}: train the value "
            "again, or take the release that wrote it"
        )
    return dict(facts)
