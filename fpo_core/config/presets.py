"""Sets of settings under one name: what a run begins with, and those of the FPO paper.

The default and `gentle` add a supervised term to FPO and come from experiments (docs/choosing.md);
the paper is arXiv 2411.07618.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fpo_core.config.fields import Settings, setting
from fpo_core.errors import ConfigError

PresetName = Literal["default", "gentle", "paper", "paper-control", "none"]
LEARNING: dict[str, dict[str, dict[str, Any]]] = {
    "default": {
        "adapters": {"learning_rate": 6e-4, "rpo_alpha": 1.0},
        "full": {"learning_rate": 5e-5, "rpo_alpha": 1.0},
    },
    "gentle": {
        "adapters": {"learning_rate": 2e-4, "rpo_alpha": 1.0},
        "full": {"learning_rate": 2e-5, "rpo_alpha": 1.0},
    },
}
"""By what is trained; for FPO on fixed pairs under AdamW alone, with which they were chosen."""
WIDTH = 576
"""Hidden size of the model on which the rates of LEARNING were chosen: see `PresetConfig`."""
PRESET_SETTINGS = {name for kinds in LEARNING.values() for kind in kinds.values() for name in kind}
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
PAPER: dict[str, dict[str, Any]] = {
    "paper": _BOTH
    | {"learning_rate": 5e-7, "batch_size": 32, "schedule": "constant", "warmup": 150.0},
    "paper-control": _BOTH
    | {"learning_rate": 2e-5, "batch_size": 64, "schedule": "cosine", "warmup": 0.1},
}
"""Section 5.1, for Gemma-2-2B over one epoch, and the control experiments of section 5.3."""
_CHOSEN_WITH = {"objective": "fpo", "optimizer": "adamw", "online": None}
_KINDS = {"lora": "adapters", "dora": "adapters", "full": "full"}


def preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the preset that `values` name, or of the default; none where it names none.

    Less a learning rate that goes with the model's width: see `PresetConfig.learning_rate_at`.
    Raises ConfigError for adapters without a rate under the paper's, which move whole models.
    """
    name = values.get("preset", "default")
    if name in LEARNING:
        return {k: v for k, v in _learning(values).items() if k != "learning_rate"}
    if name not in PAPER:
        return {}
    adapters = _KINDS.get(values.get("fine_tune_type") or "") == "adapters" or values.get("adapter")
    if adapters and values.get("learning_rate") is None:
        raise ConfigError(
            f"preset {name} is for full fine-tuning, and its learning rate of "
            f"{PAPER[name]['learning_rate']:g} hardly trains an adapter: set learning_rate, "
            "such as 1e-4, or train in full"
        )
    return dict(PAPER[name])


def _learning(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in `LEARNING` for what is trained; none with others than they were chosen."""
    kinds = LEARNING.get(values.get("preset", "default"), {})
    meant = all(values.get(key, value) in (value, None) for key, value in _CHOSEN_WITH.items())
    kind = _KINDS.get(values.get("fine_tune_type") or "lora", "")
    return kinds.get(kind, {}) if meant else {}


@dataclass(frozen=True, kw_only=True)
class PresetConfig(Settings):
    """Whose settings to begin with."""

    preset: PresetName = setting(
        "default",
        help="Settings where no other value is given: default and gentle are FPO with a supervised "
        "term (rpo_alpha) at a rate that goes with it and with the model's width; paper is the "
        "paper's main recipe, paper-control that of its control experiments, both for the whole "
        "model; none is each setting's own default.",
    )

    @property
    def of_preset(self) -> dict[str, Any]:
        """What the preset says of any model and is in force."""
        said = preset(self.to_mapping())
        return {name: value for name, value in said.items() if getattr(self, name) == value}

    def learning_rate_at(self, width: int | None) -> float | None:
        """The preset's learning rate for a model of this hidden size; None where it has none.

        It goes with 1 / width, as Adam's does for the same change of activations (Yang et al. 2022,
        arXiv 2203.03466); of a model whose width is unknown it is that at `WIDTH`. And it goes with
        the supervised term: see `least_rpo_alpha`.
        """
        least = self.least_rpo_alpha
        if least is None or self.to_mapping().get("rpo_alpha", 0.0) < least:
            return None
        rate = _learning(self.to_mapping())["learning_rate"]
        return float(f"{rate * WIDTH / (width or WIDTH):.2g}")

    @property
    def least_rpo_alpha(self) -> float | None:
        """The weight that the preset's rate needs: with less a run breaks the model; None without.

        With more it learns as well (docs/evidence.md, `sft`).
        """
        return _learning(self.to_mapping()).get("rpo_alpha")

    @classmethod
    def completed(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Values, over what their preset says; None, as in runs of earlier versions, is `none`."""
        below = cls.fitting(preset(values), values)
        named = {"preset": values.get("preset", "default") or "none"}
        return values | named | {k: v for k, v in below.items() if values.get(k) is None}
