"""The trained weights of an mlx-lm model: where they live, and their canonical form."""

import contextlib
from collections.abc import Iterator, Mapping

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx_lm.models.switch_layers import SwitchLinear

from fpo_core.adapters.lora import (
    check_shapes,
    frozen_mixture,
    initial_weights,
    linear_of_all,
    matrices_of,
    select_blocks,
    select_targets,
)
from fpo_core.adapters.writer import MLX_MATRICES
from fpo_core.backend.directions import Direction, LowRank, matrix_shape, row_blocks
from fpo_core.config import AdapterConfig
from fpo_core.errors import ModelError
from fpo_core.models.folder import check_quantised
from fpo_core.models.layout import layout_of
from fpo_mlx import lora

Weights = dict[str, mx.array]
Places = dict[str, tuple[nn.Module, str]]
"""By canonical name, the module that holds a weight and its attribute."""


class Trainable:
    """Trained weights by canonical name, kept in float32; LoRA matrices are transposed in MLX."""

    frozen: str | None = None
    freeze_a = False
    """Whether LoRA's A gets no gradient."""

    def __init__(self, places: Places, *, adapters: bool, compute: mx.Dtype) -> None:
        self._places, self.adapters, self._compute = places, adapters, compute

    def get(self) -> Weights:
        """The weights as the model holds them."""
        return {name: module[attribute] for name, (module, attribute) in self._places.items()}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical shapes by name."""
        return {name: self._shape(weight) for name, weight in self.get().items()}

    def put(self, weights: Weights) -> None:
        """Hand weights to the model."""
        for name, (module, attribute) in self._places.items():
            module[attribute] = weights[name]

    def add_head(self, name: str, rows: int, width: int) -> None:
        """See `fpo_core.backend.parts.Trainable`."""
        module = nn.Module()
        module.weight = mx.zeros((width, rows) if self.adapters else (rows, width))
        self._places[name] = (module, "weight")

    def head(self, name: str) -> mx.array:
        """See `fpo_core.backend.parts.Trainable`."""
        module, attribute = self._places[name]
        return module[attribute].T if self.adapters else module[attribute]

    def canonical(self) -> dict[str, np.ndarray]:
        """See `fpo_core.backend.parts.Trainable`."""
        return self.to_canonical(self.get())

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        """See `fpo_core.backend.parts.Trainable`."""
        types = {name: weight.dtype for name, weight in self.get().items()}
        loaded = self.from_canonical(weights)
        self.put({name: weight.astype(types[name]) for name, weight in loaded.items()})

    def move(
        self, directions: Mapping[str, Direction], scale: float, rounding: int | None = None
    ) -> None:
        """See `fpo_core.backend.parts.Trainable`."""
        key = None if rounding is None else mx.random.key(rounding)
        for name, direction in directions.items():
            module, attribute = self._places[name]
            weight = module[attribute]
            key, now = (None, None) if key is None else mx.random.split(key)
            if weight.ndim == 2 and not self.adapters:
                _move_rows(weight, direction, scale, now)
                continue
            shape = matrix_shape(self._shape(weight))
            added = _block(direction, 0, shape[0]).reshape(self._shape(weight))
            moved = _sum(weight, added.T if self.adapters else added, scale, now)
            mx.eval(moved)
            module[attribute] = moved

    def cast(self, weights: Weights) -> Weights:
        """Fully trained weights in the precision of the compute; adapters stay float32."""
        if self.adapters or self._compute == mx.float32:
            return weights
        return {name: weight.astype(self._compute) for name, weight in weights.items()}

    def trained(self, weights: Weights) -> Weights:
        """The weights to differentiate by: those that stay are cut off."""
        if not self.freeze_a:
            return weights
        return {n: mx.stop_gradient(w) if n.endswith("lora_A") else w for n, w in weights.items()}

    @contextlib.contextmanager
    def swapped(self, weights: Weights | None = None) -> Iterator[None]:
        """Within, the model computes with these weights (its own by default), cast for compute."""
        originals = self.get()
        self.put(self.cast(originals if weights is None else weights))
        try:
            yield
        finally:
            self.put(originals)

    def to_canonical(self, weights: Mapping[str, mx.array]) -> dict[str, np.ndarray]:
        """MLX arrays in the canonical orientation, as float32 NumPy arrays."""
        return {
            name: np.ascontiguousarray(self._transposed(np.array(weight.astype(mx.float32))))
            for name, weight in weights.items()
        }

    def from_canonical(self, weights: Mapping[str, np.ndarray]) -> Weights:
        """Canonical arrays as MLX keeps them; ModelError where names or shapes do not fit."""
        check_shapes(weights, self.shapes())
        return self.to_mlx({name: weights[name] for name in self._places})

    def to_mlx(self, weights: Mapping[str, np.ndarray]) -> Weights:
        """Canonical arrays, such as optimizer moments, as MLX keeps them."""
        return {
            name: mx.array(np.ascontiguousarray(self._transposed(weight)))
            for name, weight in weights.items()
        }

    def _transposed(self, weight: np.ndarray) -> np.ndarray:
        return weight.T if self.adapters else weight

    def _shape(self, weight: mx.array) -> tuple[int, ...]:
        return tuple(weight.shape[::-1] if self.adapters else weight.shape)


def _move_rows(weight: mx.array, direction: Direction, scale: float, key: mx.array | None) -> None:
    """Add scale · direction to a matrix in place, computed some rows at a time."""
    if isinstance(direction, LowRank) and weight.dtype == mx.float32:
        left, right = mx.array(direction.left), mx.array(np.ascontiguousarray(direction.right.T))
        weight[:] = mx.addmm(weight, left, right, alpha=scale)  # takes over the weight's memory
        mx.eval(weight)
        return
    moved = []
    for start, stop in row_blocks((weight.shape[0], weight.shape[1])):
        key, now = (None, None) if key is None else mx.random.split(key)
        moved.append(_sum(weight[start:stop], _block(direction, start, stop), scale, now))
        mx.eval(moved[-1])  # or what all blocks compute in float32 would live at once
    weight[:] = mx.concatenate(moved)
    mx.eval(weight)


def _block(direction: Direction, start: int, stop: int) -> mx.array:
    """Rows of a direction, (stop − start, n) float32."""
    if isinstance(direction, LowRank):
        return mx.array(direction.left[start:stop]) @ mx.array(direction.right).T
    return mx.array(direction.rows(start, stop))


def _sum(weight: mx.array, added: mx.array, scale: float, key: mx.array | None) -> mx.array:
    """weight + scale · added in the precision of the weight, rounded stochastically with a key."""
    total = weight.astype(mx.float32) + scale * added
    if key is not None and weight.dtype == mx.bfloat16:
        # bfloat16 is float32 without its last 16 bits: a random number added there carries into
        # the rest with the probability of their share.
        noise = mx.random.randint(0, 2**16, total.shape, mx.uint32, key)
        total = ((total.view(mx.uint32) + noise) & 0xFFFF0000).view(mx.float32)
    return total.astype(weight.dtype)


def select_trainable(
    model: nn.Module, stack: list[nn.Module], config: AdapterConfig, seed: int, compute: mx.Dtype
) -> Trainable:
    """Add adapters, or choose the weights that full training moves; everything else is frozen."""
    blocks = select_blocks(len(stack), config.num_layers)
    quantised = any(isinstance(module, nn.QuantizedLinear) for module in model.modules())
    check_quantised(config.fine_tune_type, quantised)
    family = str(model.model_type)
    stacked = any(isinstance(module, SwitchLinear) for module in model.modules())
    if config.fine_tune_type == "full" and (stacked or not layout_of(family).same_names):
        raise ModelError(
            f"fine_tune_type is full, but mlx-lm names the weights of {family} otherwise "
            "than transformers, which could not load the result: use the torch backend, or lora"
        )
    model.freeze()
    if config.fine_tune_type == "full":
        whole = config.num_layers < 0
        for module in [model] if whole else [stack[i] for i in blocks]:
            module.unfreeze()
        return Trainable(_leaves(model), adapters=False, compute=compute)
    linear = {i: lora.linear_modules(stack[i]) for i in blocks}
    targets = select_targets(linear_of_all(linear.values()), config.target_modules)
    frozen = frozen_mixture((path for block in stack for path, _ in block.named_modules()), targets)
    lora.add_lora(model, len(blocks), targets, config)
    layers = {
        f"{i}.{target}": modules[target]
        for i in blocks
        for modules in [dict(stack[i].named_modules())]
        for target in targets
        if target in linear[i]
    }
    places: Places = {
        f"{place}.{matrix}": (layer, MLX_MATRICES[matrix])
        for place, layer in layers.items()
        for matrix in matrices_of(config.fine_tune_type)
    }
    trainable = Trainable(places, adapters=True, compute=compute)
    trainable.frozen, trainable.freeze_a = frozen, config.freeze_a
    start = initial_weights(trainable.shapes(), seed, lambda place: lora.base_weight(layers[place]))
    trainable.load(start)
    return trainable


def _leaves(model: nn.Module) -> Places:
    """Every trainable array, by the name it has in the checkpoint."""
    return {
        f"{path}.{attribute}".lstrip("."): (module, attribute)
        for path, module in model.named_modules()
        for attribute, value in module.items()
        if isinstance(value, mx.array) and attribute in module.trainable_parameters()
    }
