"""Reading adapter_config.json of PEFT or mlx-lm; settings that only one of them has are refused."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpo_core.adapters.writer import CONFIG_FILE
from fpo_core.errors import ModelError
from fpo_core.io.regular import read_json_object

_REFUSED = {
    "modules_to_save": "whole modules in the adapter",
    "trainable_token_indices": "embeddings of single tokens",
    "target_parameters": "adapters on bare parameters",
    "layer_replication": "repeated blocks",
    "lora_bias": "biases in the adapter",
    "megatron_config": "layers of Megatron",
    "use_qalora": "pooled inputs",
    "use_bdlora": "block-diagonal matrices",
    "alora_invocation_tokens": "an adapter that starts at a token",
    "arrow_config": "routing between adapters",
    "kasa_config": "another formula than LoRA's",
    "monteclora_config": "another formula than LoRA's",
    "velora_config": "another formula than LoRA's",
}
"""Settings of PEFT that plain LoRA and DoRA cannot express, and what they mean."""
# "pissa", "olora", "corda" and "loftq" subtract the starting adapter from the base weights: such an
# adapter would be wrong on the base as published.
_KEEPS_BASE = (None, True, False, "gaussian", "eva", "orthogonal", "mica")
"""Initialisations that leave the base weights unchanged."""


@dataclass(frozen=True)
class AdapterSettings:
    """An adapter's settings, whichever library wrote them."""

    rank: int
    scale: float
    dropout: float
    ranks_vary: bool
    """Whether single modules may have other ranks."""
    scale_at: Callable[[str, int], float]
    """Scale of the module at a full path, whose matrices have this rank."""
    num_layers: int | None
    """Blocks from the end, where the configuration says; −1 is all."""
    base_model: str


def read_settings(folder: Path) -> AdapterSettings:
    """Settings from adapter_config.json; raises ModelError naming what cannot be expressed."""
    path = folder / CONFIG_FILE
    config = read_config(folder)
    if "lora_parameters" not in config and "peft_type" not in config:
        raise ModelError(
            f"{path} describes neither a PEFT nor an mlx-lm adapter: give the folder of a LoRA or "
            "DoRA adapter"
        )
    read = _from_mlx if "lora_parameters" in config else _from_peft
    try:
        settings = read(path, config)
        if settings.rank < 1 or not 0 < settings.scale < math.inf:
            raise ValueError(f"rank {settings.rank}, scale {settings.scale}")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, re.error) as error:
        raise ModelError(
            f"{path} is damaged ({error!r}): give the folder of a LoRA or DoRA adapter"
        ) from None
    return settings


def read_config(folder: Path) -> dict[str, Any]:
    """The values of adapter_config.json. Raises ModelError where it is absent or no object."""
    path = folder / CONFIG_FILE
    if not path.exists():
        raise ModelError(f"{folder} holds no {CONFIG_FILE}: give the folder of an adapter")
    return read_json_object(path, lambda text: ModelError(f"{text}: the adapter is damaged"))


def _from_mlx(path: Path, config: dict[str, Any]) -> AdapterSettings:
    kind = config.get("fine_tune_type", "lora")
    if kind not in ("lora", "dora"):
        raise ModelError(f"{path} sets fine_tune_type to {kind!r}, expected lora or dora")
    parameters = config["lora_parameters"]
    scale = float(parameters["scale"])
    return AdapterSettings(
        rank=int(parameters["rank"]),
        scale=scale,
        dropout=float(parameters.get("dropout") or 0.0),
        ranks_vary=False,
        scale_at=lambda path, rank: scale,
        num_layers=int(config["num_layers"]) if "num_layers" in config else None,
        base_model=str(config.get("base_model_name_or_path") or config.get("model") or ""),
    )


def _from_peft(path: Path, config: dict[str, Any]) -> AdapterSettings:
    _refuse(path, config)
    rank, alpha = int(config["r"]), float(config["lora_alpha"])
    alphas = {key: float(value) for key, value in (config.get("alpha_pattern") or {}).items()}
    rooted = bool(config.get("use_rslora"))

    def scale_at(module: str, rank: int) -> float:
        # As PEFT does: the first pattern that matches the end of the path decides.
        matching = (a for key, a in alphas.items() if re.match(rf"(.*\.)?({key})$", module))
        return next(matching, alpha) / (rank**0.5 if rooted else rank)

    return AdapterSettings(
        rank=rank,
        scale=alpha / (rank**0.5 if rooted else rank),
        dropout=float(config.get("lora_dropout") or 0.0),
        ranks_vary=bool(config.get("rank_pattern")),
        scale_at=scale_at,
        num_layers=-1 if config.get("layers_to_transform") is None else None,
        base_model=str(config.get("base_model_name_or_path") or ""),
    )


def _refuse(path: Path, config: dict[str, Any]) -> None:
    """Raise ModelError where the adapter is more than LoRA or DoRA on linear layers."""
    if config["peft_type"] in ("PROMPT_TUNING", "PREFIX_TUNING"):
        raise ModelError(
            f"{path} is of virtual tokens, whose one format both backends open: use it as it is"
        )
    if config["peft_type"] != "LORA":
        raise ModelError(f"{path} sets peft_type to {config['peft_type']!r}, expected LORA")
    for key, meaning in _REFUSED.items():
        if config.get(key):
            raise ModelError(
                f"{path} sets {key} ({meaning}), which cannot be expressed in both libraries: "
                "merge the adapter into its model with PEFT instead"
            )
    if config.get("bias", "none") != "none":
        raise ModelError(
            f"{path} sets bias to {config['bias']!r}, and biases cannot be carried by both "
            "libraries: merge the adapter into its model with PEFT instead"
        )
    start = config.get("init_lora_weights")
    if start not in _KEEPS_BASE:
        raise ModelError(
            f"{path} sets init_lora_weights to {start!r}, which changed the base weights: save it "
            "from PEFT as a plain LoRA adapter (path_initial_model_for_weight_conversion)"
        )
