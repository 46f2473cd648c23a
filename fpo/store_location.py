"""Where the reference store of a run is looked for, and where it goes when it is built."""

from collections.abc import Iterable
from pathlib import Path

from fpo.model_setup import ModelSetup
from fpo_core.config import ReferenceConfig
from fpo_core.data.cache import cache_root, fingerprint
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.errors import StoreError
from fpo_core.reference.reader import ReferenceStore

FOLDER = "reference"


def shared_store(setup: ModelSetup, cache: str | None) -> Path:
    """The folder in the cache for the reference of a setup's model, by what it depends on."""
    key = setup.key.to_mapping() | {
        "backend": setup.backend,
        "device": setup.config.device,
        "dtype": setup.config.dtype,
    }
    # How features are stored, where it is not as usual: a wider cap needs another pass.
    usual = ReferenceConfig()
    for name in ("feature_cap", "feature_dtype"):
        value = getattr(setup.config, name, getattr(usual, name))
        key |= {} if value == getattr(usual, name) else {name: value}
    return cache_root(cache).parent / FOLDER / fingerprint(key)


def training_store(setup: ModelSetup, folder: str | None, output: str, cache: str | None) -> Path:
    """`folder`; by default the output's, if begun; else the cache's, if begun; else the output's.

    Raises StoreError where the store in `folder` or the output was built from something else.
    """
    chosen = Path(output) / FOLDER if folder is None else Path(folder)
    if ReferenceStore.exists(chosen):
        setup.key.check(ReferenceStore.key_of(chosen), chosen)
        return chosen
    shared = shared_store(setup, cache)
    return shared if folder is None and ReferenceStore.exists(shared) else chosen


def evaluation_store(
    setup: ModelSetup,
    folder: str | None,
    near: Iterable[Path],
    cache: str | None,
    split: TokenisedPairs,
) -> Path:
    """`folder`; by default one in folders `near` that holds the split; else the cache's."""
    if folder is not None:
        if ReferenceStore.exists(Path(folder)):
            setup.key.check(ReferenceStore.key_of(Path(folder)), Path(folder))
        return Path(folder)
    for place in near:
        if _holds(setup, place / FOLDER, split):
            return place / FOLDER
    return shared_store(setup, cache)


def _holds(setup: ModelSetup, folder: Path, split: TokenisedPairs) -> bool:
    """Whether nothing need be added: evaluations read the store of a run, and never change it."""
    try:
        store = ReferenceStore.open(folder)
        setup.key.check(store.key, folder)
    except StoreError:
        return False
    return not store.missing(split.keys())
