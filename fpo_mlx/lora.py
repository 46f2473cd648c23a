"""LoRA through mlx-lm's layers."""

from typing import Any

from mlx import nn
from mlx_lm.tuner.utils import linear_to_lora_layers

from fpo_core.adapters import LORA_KEYS
from fpo_core.config import AdapterConfig


def add_lora(model: nn.Module, num_layers: int, targets: list[str], config: AdapterConfig) -> None:
    """Put adapters on the target modules of the last so many blocks."""
    values = (config.rank, config.scale, config.dropout, targets)
    parameters: dict[str, Any] = dict(zip(LORA_KEYS, values, strict=True))
    linear_to_lora_layers(model, num_layers, parameters)


def linear_modules(block: nn.Module) -> list[str]:
    """Paths of the linear layers of a block, quantised ones included."""
    return [
        path
        for path, module in block.named_modules()
        if isinstance(module, nn.Linear | nn.QuantizedLinear)
    ]
