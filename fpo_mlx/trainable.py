"""The trained weights of an mlx-lm model: where they live, and their canonical form."""

import contextlib
from collections.abc import Iterator, Mapping

import mlx.core as mx
import numpy as np
from mlx import nn

from fpo_core.adapters.lora import (
    check_shapes,
    frozen_mixture,
    initial_weights,
    matrices_of,
    select_blocks,
    select_targets,
)
from fpo_core.adapters.writer import MLX_MATRICES
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

    def __init__(self, places: Places, *, is_lora: bool, compute: mx.Dtype) -> None:
        self._places, self.is_lora, self._compute = places, is_lora, compute

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

    def canonical(self) -> dict[str, np.ndarray]:
        """See `fpo_core.backend.parts.Trainable`."""
        return self.to_canonical(self.get())

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        """See `fpo_core.backend.parts.Trainable`."""
        self.put(self.from_canonical(weights))

    def cast(self, weights: Weights) -> Weights:
        """Fully trained weights in the precision of the compute; adapters stay float32."""
        if self.is_lora or self._compute == mx.float32:
            return weights
        return {name: weight.astype(self._compute) for name, weight in weights.items()}

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
        return weight.T if self.is_lora else weight

    def _shape(self, weight: mx.array) -> tuple[int, ...]:
        return tuple(weight.shape[::-1] if self.is_lora else weight.shape)


def select_trainable(
    model: nn.Module, stack: list[nn.Module], config: AdapterConfig, seed: int, compute: mx.Dtype
) -> Trainable:
    """Add adapters, or choose the weights that full training moves; everything else is frozen."""
    blocks = select_blocks(len(stack), config.num_layers)
    quantised = any(isinstance(module, nn.QuantizedLinear) for module in model.modules())
    check_quantised(config.fine_tune_type, quantised)
    family = str(model.model_type)
    if config.fine_tune_type == "full" and not layout_of(family).same_names:
        raise ModelError(
            f"fine_tune_type is full, but mlx-lm names the weights of {family} otherwise "
            "than transformers, which could not load the result: use the torch backend, or lora"
        )
    model.freeze()
    if config.fine_tune_type == "full":
        whole = config.num_layers < 0
        for module in [model] if whole else [stack[i] for i in blocks]:
            module.unfreeze()
        return Trainable(_leaves(model), is_lora=False, compute=compute)
    targets = select_targets(lora.linear_modules(stack[blocks[0]]), config.target_modules)
    frozen = frozen_mixture((path for path, _ in stack[blocks[0]].named_modules()), targets)
    lora.add_lora(model, len(blocks), targets, config)
    layers = {
        f"{i}.{target}": modules[target]
        for i in blocks
        for modules in [dict(stack[i].named_modules())]
        for target in targets
    }
    places: Places = {
        f"{place}.{matrix}": (layer, MLX_MATRICES[matrix])
        for place, layer in layers.items()
        for matrix in matrices_of(config.fine_tune_type)
    }
    trainable = Trainable(places, is_lora=True, compute=compute)
    trainable.frozen = frozen
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
