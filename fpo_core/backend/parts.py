"""What the base policy and a backend's modules hand each other, besides operations (`Ops`)."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fpo_core.arrays.ops import Array
from fpo_core.backend.directions import Direction
from fpo_core.backend.process_group import Group
from fpo_core.config import AdapterConfig, BackendConfig, ModelConfig, StepConfig
from fpo_core.loss.degrees import DEGREE_HEAD
from fpo_core.loss.values import VALUE_HEAD
from fpo_core.sae.hook import Hook
from fpo_core.sae.taps import Features

Canonical = Mapping[str, np.ndarray]
"""Float32 arrays by canonical name (`fpo_core.adapters.lora`)."""


@dataclass(frozen=True)
class Setup:
    """What a policy is opened with; see `BasePolicy`."""

    folder: Path
    model: ModelConfig
    adapter: AdapterConfig
    features: Features | None
    grad_checkpoint: bool
    step: StepConfig
    zeroth_order: bool = False
    degree_levels: int = 0
    value_head: bool = False
    shard: Group | None = None
    """The processes among which the model is split; None where each holds the whole."""
    cpu_offload: bool = False

    @property
    def heads(self) -> dict[str, int]:
        """Heads that are trained beside the model: their rows by canonical name."""
        rows = {DEGREE_HEAD: self.degree_levels, VALUE_HEAD: int(self.value_head)}
        return {name: count for name, count in rows.items() if count}

    @property
    def float32_weights(self) -> bool:
        """Whether the model's own weights are trained with gradients: in float32, cast to compute.

        Zeroth-order steps move them as they are, in the memory of inference.
        """
        return self.adapter.fine_tune_type == "full" and not self.zeroth_order

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """Where the autoencoders read."""
        return () if self.features is None else self.features.hooks


class Devices(Protocol):
    """A backend's `device` module. Devices and dtypes are the framework's own."""

    def select_device(self, config: BackendConfig) -> Any:
        """The device that the settings name; BackendError where it is absent."""
        ...

    def select_dtype(self, config: BackendConfig, device: Any) -> Any:
        """The precision of the frozen weights and of the compute."""
        ...

    def configure(self, owner: object, device: Any, step: StepConfig) -> None:
        """Apply the settings of a step while `owner` lives; BackendError for unsupported ones."""
        ...

    def seed(self, number: int) -> None:
        """See `fpo_core.backend.policy.Policy.seed`."""
        ...

    def memory_limit(self, device: Any) -> int | None:
        """See `fpo_core.backend.policy.Policy.memory_limit`, as the three below."""
        ...

    def peak_memory(self, device: Any) -> int:
        """Most bytes in use."""
        ...

    def reset_peak_memory(self, device: Any) -> None:
        """Count the peak from here."""
        ...

    def memory_in_use(self, device: Any) -> dict[str, int]:
        """Bytes by kind of use."""
        ...


class Trainable(Protocol):
    """The trained weights of a model: float32, or as loaded where `Setup.zeroth_order`."""

    adapters: bool
    """Whether they are adapters' and not the model's own."""
    frozen: str | None
    """What of the model adapters leave frozen that a user may expect them on."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The weights' canonical shapes."""
        ...

    def add_head(self, name: str, rows: int, width: int) -> None:
        """Train a head of zeros, (rows, width), beside them, under a canonical name."""
        ...

    def head(self, name: str) -> Any:
        """Such a head as an array of the framework, (rows, width)."""
        ...

    def canonical(self) -> dict[str, np.ndarray]:
        """Copies of the weights."""
        ...

    def load(self, weights: Canonical) -> None:
        """Replace the weights; ModelError where names or shapes do not fit."""
        ...

    def from_canonical(self, weights: Canonical) -> Any:
        """Arrays of the framework for `swapped`; ModelError where names or shapes do not fit."""
        ...

    def swapped(self, weights: Any) -> AbstractContextManager[None]:
        """Within, the model computes with these weights in place of its own."""
        ...

    def move(
        self, directions: Mapping[str, Direction], scale: float, rounding: int | None = None
    ) -> None:
        """Add scale · direction to each weight, in place.

        The sum is rounded to the weight's precision: to nearest, so that a move and its reverse
        cancel, or with a seed `rounding` stochastically, so that steps below it are not lost.
        """
        ...


class Optimizer(Protocol):
    """A framework's optimizer with the accumulated gradient of the trained weights."""

    def norm(self) -> Array:
        """The norm of the accumulated gradient, (), which processes sum at the first call.

        Nothing may be added before a step or `drop_gradients`.
        """
        ...

    def step(self, learning_rate: float, max_norm: float, norm: float) -> None:
        """Take a step with the gradient clipped, where its norm is finite, and drop it.

        `norm` is `norm()` as the host read it.
        """
        ...

    def drop_gradients(self) -> None:
        """Forget the accumulated gradient."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """See `fpo_core.backend.policy.Policy.optimizer_state`."""
        ...

    def load_state(self, state: Canonical) -> None:
        """Replace the state; TrainingError where it is another optimizer's or model's."""
        ...
