"""LoRA and DoRA through PEFT, under the core's canonical names."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fpo_core.adapters.lora import place_of
from fpo_core.config import AdapterConfig
from fpo_core.errors import ModelError, shorten

# What PEFT puts around the canonical name: prefixes before the block's number, `default` after.
_WEIGHT = re.compile(r"\.(?P<name>\d+\..+\.(?:lora_[AB]|lora_magnitude_vector))\.default\.weight$")


def add_lora(
    model: PreTrainedModel, stack_path: str, places: list[str], config: AdapterConfig
) -> nn.Module:
    """The model with adapters at these places of its blocks, such as `3.self_attn.q_proj`.

    Raises ModelError where PEFT would put them elsewhere, or nowhere.
    """
    targets = [f"{stack_path}.{place}" for place in places]
    family = type(model).__name__
    peft_config = LoraConfig(
        r=config.rank,
        # PEFT scales by alpha / r.
        lora_alpha=config.rank * config.scale,  # pyright: ignore[reportArgumentType]
        lora_dropout=config.dropout,
        use_dora=config.fine_tune_type == "dora",
        fan_in_fan_out=isinstance(model.get_submodule(targets[0]), Conv1D),
        target_modules=targets,
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        adapted = get_peft_model(model, peft_config)
    except ValueError as error:
        raise ModelError(
            f"PEFT cannot adapt this {family} ({shorten(error)}): name other target_modules"
        ) from None
    # Of some mixtures of experts PEFT takes names of dense layers for those of all experts.
    apart = {place_of(name) for name, _ in lora_weights(adapted)} ^ set(places)
    if apart:
        raise ModelError(
            f"PEFT does not adapt this {family} as asked, which shows at {min(apart)}: name other "
            "target_modules, such as those of attention alone"
        )
    return adapted


def lora_weights(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Adapter weights by canonical name."""
    for key, weight in model.named_parameters():
        match = _WEIGHT.search(key)
        if match:
            yield match["name"], weight


def linear_modules(block: nn.Module) -> list[str]:
    """Paths of the linear layers of a block, GPT-2's Conv1D included."""
    return [
        path for path, module in block.named_modules() if isinstance(module, nn.Linear | Conv1D)
    ]


def base_weight(block: nn.Module, target: str) -> np.ndarray:
    """The frozen float32 weight (out, in) under the adapter of a block's module."""
    layer: Any = block.get_submodule(target)
    weight = layer.get_base_layer().weight.detach().float().cpu().numpy()
    return weight.T if layer.fan_in_fan_out else weight
