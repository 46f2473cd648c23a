"""Optimizers without a framework: which backend has which, and the state each keeps of a weight.

The state of a run holds arrays under `<weight>.<part>`, in the weight's canonical orientation, and
the steps taken under `step`. Both frameworks resume from the same file.
"""

from collections.abc import Mapping

import numpy as np

from fpo_core.config.optimizer_table import OPTIMIZERS, Shape
from fpo_core.errors import BackendError, TrainingError


def check_optimizer(optimizer: str, backend: str) -> None:
    """Raise BackendError where a backend's framework lacks an optimizer."""
    if backend in OPTIMIZERS[optimizer].lacking:
        others = ", ".join(name for name, row in OPTIMIZERS.items() if backend not in row.lacking)
        raise BackendError(
            f"optimizer is {optimizer}, which {backend} does not have: choose one of {others}, or "
            "another backend"
        )


def state_parts(optimizer: str, shape: Shape) -> dict[str, Shape]:
    """The state that an optimizer keeps of a weight of this shape: its parts and their shapes."""
    return OPTIMIZERS[optimizer].parts(shape)


def check_state(
    state: Mapping[str, np.ndarray], optimizer: str, weights: Mapping[str, Shape]
) -> None:
    """Raise TrainingError where a state is not this optimizer's over weights of these shapes."""
    expected: dict[str, Shape] = {}
    for name, shape in weights.items():
        parts = state_parts(optimizer, shape)
        expected |= {f"{name}.{part}": size for part, size in parts.items()}
    check_parts(state, optimizer, expected)


def check_parts(
    state: Mapping[str, np.ndarray], optimizer: str, parts: Mapping[str, Shape]
) -> None:
    """Raise TrainingError unless a state holds the step and `parts`, arrays of these shapes."""
    expected = {"step": (), **parts}
    shapes = {name: tuple(array.shape) for name, array in state.items()}
    wrong = sorted(name for name in {*expected, *shapes} if shapes.get(name) != expected.get(name))
    if wrong:
        raise TrainingError(
            f"the optimizer's state does not fit {optimizer} and what this run trains: "
            f"{len(wrong)} of its arrays, such as {wrong[0]}; it belongs to another run"
        )
