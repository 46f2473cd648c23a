"""Sets of settings under one name: those of the FPO paper (arXiv 2411.07618)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fpo_core.config.fields import Settings, setting
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
    "normalize_d": False,
}
PRESETS: dict[str, dict[str, Any]] = {
    "paper": _BOTH
    | {"learning_rate": 5e-7, "batch_size": 32, "schedule": "constant", "warmup": 150.0},
    "paper-control": _BOTH
    | {"learning_rate": 2e-5, "batch_size": 64, "schedule": "cosine", "warmup": 0.1},
}
"""Section 5.1, for Gemma-2-2B over one epoch, and the control experiments of section 5.3."""


def preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the preset that `values` name; none where it names none.

    Raises ConfigError for adapters without a learning rate: the paper's moves whole models.
    """
    name = values.get("preset")
    if not isinstance(name, str) or name not in PRESETS:
        return {}
    adapters = values.get("fine_tune_type") in ("lora", "dora") or values.get("adapter") is not None
    if adapters and values.get("learning_rate") is None:
        raise ConfigError(
            f"preset {name} is for full fine-tuning, and its learning rate of "
            f"{PRESETS[name]['learning_rate']:g} hardly trains an adapter: set learning_rate, "
            "such as 1e-4, or train in full"
        )
    return dict(PRESETS[name])


@dataclass(frozen=True, kw_only=True)
class PresetConfig(Settings):
    """Whose settings to begin with."""

    preset: PresetName | None = setting(
        None,
        help="Settings of the paper, where no other value is given: paper is its main recipe, "
        "paper-control that of its control experiments; both train the whole model.",
    )

    @classmethod
    def completed(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Values, over what their preset says."""
        below = cls.fitting(preset(values), values)
        return values | {name: v for name, v in below.items() if values.get(name) is None}
