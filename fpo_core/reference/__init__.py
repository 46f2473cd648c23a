"""The reference store: what the frozen model says of every pair, computed once (§3)."""

from fpo_core.reference.key import StoreKey
from fpo_core.reference.reader import ReferenceStore
from fpo_core.reference.writer import StoreWriter

__all__ = ["ReferenceStore", "StoreKey", "StoreWriter"]
