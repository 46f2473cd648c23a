"""The trained weights of a transformers model, under canonical names."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fpo_core.adapters.lora import (
    check_shapes,
    frozen_mixture,
    initial_weights,
    linear_of_all,
    place_of,
    select_blocks,
    select_targets,
)
from fpo_core.backend.directions import Dense, Direction, matrix_shape, row_blocks
from fpo_core.config import AdapterConfig
from fpo_core.models.folder import check_quantised
from fpo_torch.lora import add_lora, base_weight, linear_modules, lora_weights
from fpo_torch.models import find_blocks

Weights = dict[str, Tensor]


class Trainable:
    """See `fpo_core.backend.parts.Trainable`."""

    frozen: str | None = None

    def __init__(self, parameters: dict[str, nn.Parameter], *, adapters: bool) -> None:
        self.parameters, self.adapters = parameters, adapters

    @contextlib.contextmanager
    def swapped(self, weights: Weights) -> Iterator[None]:
        """See `fpo_core.backend.parts.Trainable`; the weights' gradients stay where they are."""
        originals = {name: parameter.data for name, parameter in self.parameters.items()}
        try:
            for name, parameter in self.parameters.items():
                parameter.data = weights[name]
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.data = originals[name]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name."""
        return {name: tuple(weight.shape) for name, weight in self.parameters.items()}

    def add_head(self, name: str, rows: int, width: int) -> None:
        """See `fpo_core.backend.parts.Trainable`."""
        device = next(iter(self.parameters.values())).device
        self.parameters[name] = nn.Parameter(torch.zeros(rows, width, device=device))

    def head(self, name: str) -> Tensor:
        """See `fpo_core.backend.parts.Trainable`."""
        return self.parameters[name]

    def canonical(self) -> dict[str, np.ndarray]:
        """The weights as NumPy arrays."""
        return {name: to_numpy(parameter) for name, parameter in self.parameters.items()}

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        """Replace the weights; ModelError where names or shapes do not fit."""
        for name, weight in self.from_canonical(weights).items():
            data = self.parameters[name].data
            if data.shape == weight.shape:
                data.copy_(weight)
            else:  # another number of virtual tokens
                self.parameters[name].data = weight

    def from_canonical(self, weights: Mapping[str, np.ndarray]) -> Weights:
        """Canonical arrays as tensors; ModelError where names or shapes do not fit."""
        check_shapes(weights, self.shapes())
        return {
            name: torch.from_numpy(np.array(weights[name])).to(parameter)
            for name, parameter in self.parameters.items()
        }

    @torch.no_grad()
    def move(
        self, directions: Mapping[str, Direction], scale: float, rounding: int | None = None
    ) -> None:
        """See `fpo_core.backend.parts.Trainable`."""
        draw = None
        if rounding is not None:
            device = next(iter(self.parameters.values())).device
            draw = torch.Generator(device).manual_seed(rounding)
        for name, direction in directions.items():
            weight = self.parameters[name].data
            _move(weight.view(matrix_shape(weight.shape)), direction, scale, draw)


def _move(matrix: Tensor, direction: Direction, scale: float, draw: torch.Generator | None) -> None:
    """Add scale · direction to a matrix (m, n), some rows at a time where that needs memory."""
    if isinstance(direction, Dense):
        of_rows = direction.rows

        def added(start: int, stop: int) -> Tensor:
            return torch.from_numpy(of_rows(start, stop)).to(matrix.device)

    else:
        factors = (direction.left, direction.right)
        left, right = (torch.from_numpy(factor).to(matrix.device) for factor in factors)
        if matrix.dtype == torch.float32:
            matrix.addmm_(left, right.T, alpha=scale)
            return

        def added(start: int, stop: int) -> Tensor:
            return left[start:stop] @ right.T

    for start, stop in row_blocks((matrix.shape[0], matrix.shape[1])):
        total = matrix[start:stop].float().add(added(start, stop), alpha=scale)
        if draw is not None and matrix.dtype == torch.bfloat16:
            total = _rounded_stochastically(total, draw)
        matrix[start:stop] = total


def _rounded_stochastically(x: Tensor, draw: torch.Generator) -> Tensor:
    """float32 values that bfloat16 holds exactly, `x` in expectation."""
    # bfloat16 is float32 without its last 16 bits: a random number added there carries into the
    # rest with the probability of their share.
    noise = torch.randint(0, 2**16, x.shape, dtype=torch.int32, device=x.device, generator=draw)
    return (x.view(torch.int32) + noise).bitwise_and_(-(2**16)).view(torch.float32)


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A float32 copy on the host."""
    return tensor.detach().float().cpu().numpy().copy()


def adapted(model: PreTrainedModel, config: AdapterConfig) -> nn.Module:
    """The model to call: with adapters, or with the weights chosen that full training moves.

    Everything else is frozen.
    """
    path, stack = find_blocks(model)
    blocks = select_blocks(len(stack), config.num_layers)
    check_quantised(config.fine_tune_type, hasattr(model.config, "quantization_config"))
    if config.fine_tune_type == "full":
        starts = tuple(f"{path}.{block}." for block in blocks)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(config.num_layers < 0 or name.startswith(starts))
        return model
    linear = {block: linear_modules(stack[block]) for block in blocks}
    targets = select_targets(linear_of_all(linear.values()), config.target_modules)
    places = [
        f"{block}.{target}" for block in blocks for target in targets if target in linear[block]
    ]
    return add_lora(model, path, places, config)


def select_trainable(
    model: nn.Module,
    config: AdapterConfig,
    stack: nn.ModuleList,
    seed: int,
    kind: Callable[..., Trainable] = Trainable,
) -> Trainable:
    """The trained weights of an `adapted` model with these blocks; adapters as they begin."""
    if config.fine_tune_type == "full":
        chosen = {name: p for name, p in model.named_parameters() if p.requires_grad}
        return kind(chosen, adapters=False)
    trainable = kind(dict(lora_weights(model)), adapters=True)
    targets = {place_of(name).split(".", 1)[1] for name in trainable.parameters}
    trainable.frozen = frozen_mixture((n for n, _ in stack.named_modules()), sorted(targets))
    if config.freeze_a:
        for name, weight in trainable.parameters.items():
            if name.endswith("lora_A"):
                weight.register_hook(torch.zeros_like)

    def base(place: str) -> np.ndarray:
        block, target = place.split(".", 1)
        return base_weight(stack[int(block)], target)

    trainable.load(initial_weights(trainable.shapes(), seed, base))
    return trainable
