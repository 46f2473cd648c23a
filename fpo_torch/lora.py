"""LoRA through PEFT, under the core's canonical names."""

import re
from collections.abc import Iterator

from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from fpo_core.config import AdapterConfig

_WEIGHT = re.compile(r"\.(?P<name>\d+\..+\.lora_[AB])\.default\.weight$")


def add_lora(model: PreTrainedModel, targets: list[str], config: AdapterConfig) -> nn.Module:
    """The model with adapters on the modules at these full paths."""
    peft_config = LoraConfig(
        r=config.rank,
        lora_alpha=config.rank * config.scale,  # pyright: ignore[reportArgumentType]
        lora_dropout=config.dropout,
        target_modules=targets,
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, peft_config)


def lora_weights(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Adapter weights by canonical name."""
    for key, weight in model.named_parameters():
        match = _WEIGHT.search(key)
        if match:
            yield match["name"], weight


def linear_modules(block: nn.Module) -> list[str]:
    """Paths of the linear layers of a block, GPT-2's Conv1D included."""
    return [
        path
        for path, module in block.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    ]
