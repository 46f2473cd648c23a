"""The reference store: log-probabilities and features of the frozen model, per pair (§3)."""

from fpo_core.reference.key import StoreKey
from fpo_core.reference.reader import ReferenceStore
from fpo_core.reference.writer import StoreWriter

__all__ = ["ReferenceStore", "StoreKey", "StoreWriter"]
