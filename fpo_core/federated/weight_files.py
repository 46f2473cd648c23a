"""Files of float32 arrays by name, which a federation keeps between its rounds."""

from pathlib import Path

import numpy as np

from fpo_core.errors import TrainingError
from fpo_core.io.atomic import replacing
from fpo_core.io.reader import open_safetensors
from fpo_core.io.writer import write_arrays

Weights = dict[str, np.ndarray]


def read_weights(path: Path, advice: str = "begin again") -> Weights:
    """The arrays of a file; TrainingError, which ends in the advice, where it is damaged."""
    file = open_safetensors(path, lambda text: TrainingError(f"{text}: {advice}"))
    return {name: np.array(file.rows(name), np.float32) for name in file.entries}


def write_weights(path: Path, weights: Weights) -> None:
    """Write such a file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        write_arrays(temporary, {n: np.ascontiguousarray(w) for n, w in weights.items()})
