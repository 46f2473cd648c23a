"""Phase 2: the training loop, the same for every framework."""

from fpo_core.train.kl_reference import hold_reference
from fpo_core.train.loop import TrainResult, train
from fpo_core.train.paired_data import RunData

__all__ = ["RunData", "TrainResult", "hold_reference", "train"]
