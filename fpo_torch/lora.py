"""LoRA through PEFT, under the core's canonical names."""

import re
from collections.abc import Iterator

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from fpo_core.adapters import initial_lora
from fpo_core.config import AdapterConfig
from fpo_core.errors import ModelError
from fpo_torch.models import find_blocks, linear_modules

_WEIGHT = re.compile(r"\.(?P<name>\d+\..+\.lora_[AB])\.default\.weight$")


def add_lora(
    model: PreTrainedModel, config: AdapterConfig, blocks: list[int], seed: int
) -> nn.Module:
    """The model with adapters on the chosen blocks, starting weights from the core."""
    path, stack = find_blocks(model)
    peft_config = LoraConfig(
        r=config.rank,
        lora_alpha=config.rank * config.scale,  # pyright: ignore[reportArgumentType]
        lora_dropout=config.dropout,
        target_modules=[
            f"{path}.{i}.{name}" for i in blocks for name in _targets(stack[i], config)
        ],
        bias="none",
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, peft_config)
    with torch.no_grad():
        for name, weight in lora_weights(adapted):
            weight.copy_(torch.from_numpy(initial_lora(name, tuple(weight.shape), seed)))
    return adapted


def lora_weights(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Adapter weights by canonical name."""
    for key, weight in model.named_parameters():
        match = _WEIGHT.search(key)
        if match:
            yield match["name"], weight


def _targets(block: nn.Module, config: AdapterConfig) -> list[str]:
    """Paths of the block's linear layers that get an adapter; ModelError for a name that fits none."""
    linear = list(linear_modules(block))
    if config.target_modules is None:
        return linear
    for target in config.target_modules:
        if not any(name == target or name.endswith("." + target) for name in linear):
            raise ModelError(
                f"target_modules names {target!r}, but the linear layers of a block are "
                f"{', '.join(linear)}"
            )
    ends = tuple("." + target for target in config.target_modules)
    return [name for name in linear if ("." + name).endswith(ends)]
