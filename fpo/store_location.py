"""Where the reference store of a run lies when it is found, and where it goes when it is built."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from fpo.model_setup import ModelSetup
from fpo_core.data.cache import cache_root
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.errors import StoreError
from fpo_core.reference import ReferenceStore

FOLDER = "reference"


def shared_store(setup: ModelSetup, cache: str | None) -> Path:
    """The folder in the cache for the reference of a setup's model, by what it depends on."""
    key = setup.key.to_mapping() | {
        "backend": setup.backend,
        "device": setup.config.device,
        "dtype": setup.config.dtype,
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return cache_root(cache).parent / FOLDER / name


def training_store(setup: ModelSetup, named: str | None, output: str, cache: str | None) -> Path:
    """The named folder; else the output's, if begun; else the cache's, if begun; else the output's.

    Raises StoreError where a named store, or the output's, was made from something else.
    """
    own = Path(output) / FOLDER if named is None else Path(named)
    if ReferenceStore.exists(own):
        setup.key.check(ReferenceStore.open(own).key, own)
        return own
    shared = shared_store(setup, cache)
    return shared if named is None and ReferenceStore.exists(shared) else own


def evaluation_store(
    setup: ModelSetup,
    named: str | None,
    near: Iterable[Path],
    cache: str | None,
    split: TokenisedPairs,
) -> Path:
    """The named folder; else one in folders `near` that holds the split; else the cache's."""
    if named is not None:
        if ReferenceStore.exists(Path(named)):
            setup.key.check(ReferenceStore.open(Path(named)).key, Path(named))
        return Path(named)
    for folder in near:
        if _holds(setup, folder / FOLDER, split):
            return folder / FOLDER
    return shared_store(setup, cache)


def _holds(setup: ModelSetup, folder: Path, split: TokenisedPairs) -> bool:
    """Whether nothing need be added: a run's own store is read by others, never changed."""
    try:
        store = ReferenceStore.open(folder)
        setup.key.check(store.key, folder)
    except StoreError:
        return False
    return not store.missing(split.keys())
