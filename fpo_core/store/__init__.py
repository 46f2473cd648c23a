"""The reference store: what the frozen model says of every pair, computed once (§3)."""

from fpo_core.store.key import StoreKey
from fpo_core.store.reader import ReferenceStore
from fpo_core.store.writer import StoreWriter

__all__ = ["ReferenceStore", "StoreKey", "StoreWriter"]
