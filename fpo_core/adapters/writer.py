"""The adapter folder that PEFT and mlx-lm both open.

PEFT reads adapter_model.safetensors, mlx-lm adapters.safetensors; both read adapter_config.json,
which carries the keys of both.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from fpo_core.adapters.integrity import with_hashes
from fpo_core.adapters.lora import Adapter
from fpo_core.io.atomic import replacing, write_json
from fpo_core.io.writer import FileHash, write_arrays
from fpo_core.models.layout import Layout

CONFIG_FILE = "adapter_config.json"
PEFT_FILE = "adapter_model.safetensors"
MLX_FILE = "adapters.safetensors"
LORA_KEYS = ("rank", "scale", "dropout", "keys")
"""mlx-lm's names for an adapter's settings."""
MLX_MATRICES = {"lora_A": "lora_a", "lora_B": "lora_b", "lora_magnitude_vector": "m"}
"""mlx-lm's names of the weights; it stores matrices transposed."""
Target = Literal["peft", "mlx", "both"]


def save_adapter(
    folder: Path, adapter: Adapter, *, base_model: str, layout: Layout, to: Target = "both"
) -> None:
    """Write an adapter folder for PEFT, mlx-lm or both."""
    config: dict[str, Any] = {}
    files: dict[str, FileHash] = {}
    if to != "mlx":
        tensors = {
            _peft_key(name, layout): np.ascontiguousarray(weight)
            for name, weight in adapter.weights.items()
        }
        with replacing(folder / PEFT_FILE) as temporary:
            files[PEFT_FILE] = write_arrays(temporary, tensors)
        config |= _peft_config(adapter, base_model, layout)
    if to != "peft":
        transposed = {
            _mlx_key(name, layout): np.ascontiguousarray(weight.T)
            for name, weight in adapter.weights.items()
        }
        with replacing(folder / MLX_FILE) as temporary:
            files[MLX_FILE] = write_arrays(temporary, transposed, "mlx")
        config |= _mlx_config(adapter, base_model)
    write_json(folder / CONFIG_FILE, with_hashes(config, files))


def _peft_key(name: str, layout: Layout) -> str:
    ending = ".weight" if name.endswith(("lora_A", "lora_B")) else ""
    return f"base_model.model.{layout.peft}.{name}{ending}"


def _mlx_key(name: str, layout: Layout) -> str:
    place, matrix = name.rsplit(".", 1)
    return f"{layout.mlx}.{place}.{MLX_MATRICES[matrix]}"


def _peft_config(adapter: Adapter, base_model: str, layout: Layout) -> dict[str, Any]:
    regular = adapter.is_regular
    paths = [f"{layout.peft}.{place}" for place in adapter.places()]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": adapter.rank,
        "lora_alpha": _alpha(adapter),
        "lora_dropout": adapter.dropout,
        "use_dora": adapter.fine_tune_type == "dora",
        # An irregular adapter lists every path, since PEFT adapts all modules in all listed blocks.
        "target_modules": adapter.modules() if regular else paths,
        "layers_to_transform": adapter.blocks() if regular else None,
        "fan_in_fan_out": layout.transposed,
        "bias": "none",
        "inference_mode": True,
    }


def _alpha(adapter: Adapter) -> float:
    """PEFT's lora_alpha, whole where that gives the same scale."""
    alpha = adapter.rank * adapter.scale
    return round(alpha) if round(alpha) / adapter.rank == adapter.scale else alpha


def _mlx_config(adapter: Adapter, base_model: str) -> dict[str, Any]:
    values = (adapter.rank, adapter.scale, adapter.dropout, adapter.modules())
    return {
        "model": base_model,
        "fine_tune_type": adapter.fine_tune_type,
        "num_layers": adapter.num_layers,
        "lora_parameters": dict(zip(LORA_KEYS, values, strict=True)),
    }
