"""Phase 2: the training loop, the same for every framework."""

from fpo_core.train.loop import TrainResult, train
from fpo_core.train.run_data import RunData

__all__ = ["RunData", "TrainResult", "train"]
