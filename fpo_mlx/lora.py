"""LoRA and DoRA through mlx-lm's layers."""

from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx_lm.tuner.dora import DoRALinear
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.tuner.utils import linear_to_lora_layers

from fpo_core.adapters.writer import LORA_KEYS
from fpo_core.config import AdapterConfig
from fpo_core.errors import ModelError

LINEAR = (nn.Linear, nn.QuantizedLinear, LoRALinear, DoRALinear)
"""Linear layers, adapted or not."""
_DORA_BITS = (2, 4, 8)
"""Widths that divide 32: for others mlx-lm's DoRALinear computes a wrong input size."""


def add_lora(model: nn.Module, num_layers: int, targets: list[str], config: AdapterConfig) -> None:
    """Put adapters on the target modules of the last `num_layers` blocks."""
    values = (config.rank, config.scale, config.dropout, targets)
    parameters: dict[str, Any] = dict(zip(LORA_KEYS, values, strict=True))
    dora = config.fine_tune_type == "dora"
    if dora:
        _check_bits(model)
    linear_to_lora_layers(model, num_layers, parameters, use_dora=dora)


def _check_bits(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if isinstance(module, nn.QuantizedLinear) and module.bits not in _DORA_BITS:
            raise ModelError(
                f"fine_tune_type is dora, but {path} is quantised to {module.bits} bits, which "
                "mlx-lm's DoRA cannot hold: train lora, or take a base of 4 or 8 bits"
            )


def linear_modules(block: nn.Module) -> list[str]:
    """Paths of the linear layers of a block, quantised ones included."""
    return [
        path
        for path, module in block.named_modules()
        if isinstance(module, nn.Linear | nn.QuantizedLinear)
    ]


def base_weight(layer: Any) -> np.ndarray:
    """The frozen float32 weight (out, in) under an adapter, dequantised."""
    linear = layer.linear
    weight = linear.weight
    if isinstance(linear, nn.QuantizedLinear):
        weight = mx.dequantize(
            weight,
            linear.scales,
            linear.get("biases"),
            group_size=linear.group_size,
            bits=linear.bits,
            mode=linear.mode,
        )
    return np.array(weight.astype(mx.float32))
