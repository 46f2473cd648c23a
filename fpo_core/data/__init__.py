"""Preference data: file -> Pair -> TokenisedPair -> Batch, the same on every backend.

Importing this package loads NumPy alone; datasets and transformers are imported where used.
"""

from fpo_core.data.batches import Batch, collate
from fpo_core.data.batching import BatchPlan, epoch_batches, scoring_batches
from fpo_core.data.load import PreferenceData, load_data
from fpo_core.data.report import DataReport, SplitReport
from fpo_core.data.sources import read_pairs
from fpo_core.data.token_store import TokenisedPair, TokenisedPairs
from fpo_core.data.tokenizer import load_tokenizer, special_ids
from fpo_core.pairs.pair import Pair

__all__ = [
    "Batch",
    "BatchPlan",
    "DataReport",
    "Pair",
    "PreferenceData",
    "SplitReport",
    "TokenisedPair",
    "TokenisedPairs",
    "collate",
    "epoch_batches",
    "load_data",
    "load_tokenizer",
    "read_pairs",
    "scoring_batches",
    "special_ids",
]
