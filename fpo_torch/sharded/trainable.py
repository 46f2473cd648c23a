"""Trained weights and optimizer of a sharded model: the same, of the rows that are here."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fpo_core.adapters.lora import check_shapes
from fpo_core.config import OptimiserConfig
from fpo_core.io.shards import Rows, Shard, rows_of
from fpo_torch.optimizer import Optimizer
from fpo_torch.sharded.model import Sharding, local_rows
from fpo_torch.trainable import Trainable, Weights


class ShardedTrainable(Trainable):
    """See `fpo_core.backend.parts.Trainable`; `parameters` are the rows that are here."""

    def __init__(
        self, sharding: Sharding, weights: Mapping[str, nn.Parameter], *, adapters: bool
    ) -> None:
        self.sharding, self._weights = sharding, weights
        rows = {name: nn.Parameter(local_rows(weight)) for name, weight in weights.items()}
        super().__init__(rows, adapters=adapters)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the whole weights by name."""
        return {name: tuple(weight.shape) for name, weight in self._weights.items()}

    def canonical(self) -> dict[str, Any]:
        """The rows as `Shard`s."""
        return {name: self.shard(name, rows) for name, rows in self.parameters.items()}

    def shard(self, name: str, local: Tensor) -> Shard:
        """Rows of something of a weight's shape."""
        return self.sharding.shard_of(self._weights[name], local)

    def rows(self, name: str, array: Rows) -> np.ndarray:
        """The rows of an array of a weight's shape that belong here."""
        here = self.sharding.slice_of(self._weights[name])
        return rows_of(array, here.start, here.stop)

    def from_canonical(self, weights: Mapping[str, Any]) -> Weights:
        """Rows as tensors; ModelError where names or shapes do not fit."""
        check_shapes(weights, self.shapes())
        return {
            name: torch.from_numpy(np.array(self.rows(name, weights[name]))).to(rows)
            for name, rows in self.parameters.items()
        }

    @contextlib.contextmanager
    def swapped(self, weights: Weights) -> Iterator[None]:
        """See `fpo_core.backend.parts.Trainable`; by copies, for FSDP gathers from this memory."""
        originals = {name: rows.detach().clone() for name, rows in self.parameters.items()}
        try:
            self._copy(weights)
            yield
        finally:
            self._copy(originals)

    def _copy(self, weights: Weights) -> None:
        for name, rows in self.parameters.items():
            rows.data.copy_(weights[name])

    def take_gradients(self) -> None:
        """Have the rows carry the gradients that FSDP left on the weights."""
        for name, weight in self._weights.items():
            gradient = weight.grad
            self.parameters[name].grad = None if gradient is None else local_rows(gradient)

    def drop_gradients(self) -> None:
        """Forget the gradients on the weights."""
        for weight in self._weights.values():
            weight.grad = None


class ShardedOptimizer(Optimizer):
    """Takes steps with the rows that are here; FSDP has summed their gradients over processes."""

    _trainable: ShardedTrainable
    _flattens = False  # FSDP makes the gradients

    def __init__(self, trainable: ShardedTrainable, config: OptimiserConfig) -> None:
        super().__init__(trainable, config, trainable.sharding.group)

    def norm(self) -> Tensor:
        """See `fpo_core.backend.parts.Optimizer`."""
        if self._norm is not None:
            return self._norm
        self._trainable.take_gradients()
        squares = self._local_norm().square()
        self._norm = norm = self._group.sum_native(squares).sqrt()
        return norm

    def drop_gradients(self) -> None:
        """Forget what lies on the weights."""
        super().drop_gradients()
        self._trainable.drop_gradients()

    def state(self) -> dict[str, Any]:
        """See `fpo_core.backend.policy.Policy.optimizer_state`."""
        arrays: dict[str, Any] = super().state()
        for name in self._weights:
            for key in [key for key in arrays if key.rpartition(".")[0] == name]:
                arrays[key] = self._trainable.shard(name, torch.from_numpy(arrays[key]))
        return arrays

    def _of_weight(self, name: str, array: Any) -> np.ndarray:
        return self._trainable.rows(name, array)
