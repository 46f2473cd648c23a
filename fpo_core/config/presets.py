"""Sets of settings under one name: those of the FPO paper (arXiv 2411.07618)."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from fpo_core.errors import ConfigError

PresetName = Literal["paper", "paper-control"]
_BOTH: dict[str, Any] = {
    "fine_tune_type": "full",
    "optimizer": "adamw",
    "weight_decay": 0.0,
    "max_seq_length": 2048,
    "k": 50,
    "alpha": 0.5,
    "beta": 0.1,
}
PRESETS: dict[str, dict[str, Any]] = {
    "paper": _BOTH
    | {"learning_rate": 5e-7, "batch_size": 32, "schedule": "constant", "warmup": 150.0},
    "paper-control": _BOTH
    | {"learning_rate": 2e-5, "batch_size": 64, "schedule": "cosine", "warmup": 0.1},
}
"""Section 5.1, for Gemma-2-2B over one epoch, and the control experiments of section 5.3."""


def preset(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the preset that `given` names; none where it names none.

    Raises ConfigError for adapters without a learning rate: the paper's moves whole models.
    """
    name = given.get("preset")
    if name not in get_args(PresetName):
        return {}
    adapters = given.get("fine_tune_type") in ("lora", "dora") or given.get("adapter") is not None
    if adapters and given.get("learning_rate") is None:
        raise ConfigError(
            f"preset {name} is for full fine-tuning, and its learning rate of "
            f"{PRESETS[name]['learning_rate']:g} hardly trains an adapter: give --learning-rate, "
            "such as 1e-4, or train in full"
        )
    return dict(PRESETS[name])
