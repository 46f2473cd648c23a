"""The data road: file -> Pair -> TokenisedPair -> Batch, the same on every backend.

Importing this package loads NumPy alone; readers and tokenizers are imported where they are used.
"""

from fpo_core.data.batches import Batch, collate
from fpo_core.data.plans import BatchPlan, epoch_batches, scoring_batches
from fpo_core.data.rows import TokenisedPair, TokenisedPairs

__all__ = [
    "Batch",
    "BatchPlan",
    "TokenisedPair",
    "TokenisedPairs",
    "collate",
    "epoch_batches",
    "scoring_batches",
]
