"""LoRA adapters without a framework: names, starting weights, and the folder that both load.

Canonical names are `<block>.<module>.lora_A` of shape (rank, in) and `.lora_B` of shape
(out, rank), such as `3.self_attn.q_proj.lora_A`: PEFT's orientation, free of a family's prefix.
"""

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fpo_core.errors import ModelError
from fpo_core.files import write_atomically, write_json

CONFIG_FILE = "adapter_config.json"
PEFT_FILE = "adapter_model.safetensors"
MLX_FILE = "adapters.safetensors"
LORA_KEYS = ("rank", "scale", "dropout", "keys")
"""mlx-lm's names for an adapter's settings."""
_KEY = re.compile(
    r"^(?:base_model\.model\.)?(?P<prefix>.*?)\.?(?P<block>\d+)\.(?P<module>.+)\.lora_"
)


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: which modules, how strong, and the weights by canonical name."""

    rank: int
    scale: float
    dropout: float
    num_layers: int
    """Blocks from the end that it covers."""
    weights: dict[str, np.ndarray]

    def modules(self) -> list[str]:
        """The adapted modules, relative to a block, sorted."""
        return sorted({name.split(".", 1)[1].rsplit(".", 1)[0] for name in self.weights})

    def blocks(self) -> list[int]:
        """The adapted blocks, ascending."""
        return sorted({int(name.split(".", 1)[0]) for name in self.weights})


def select_blocks(count: int, num_layers: int) -> list[int]:
    """The last `num_layers` of `count` blocks, or all for −1; ModelError where there are fewer."""
    if num_layers > count:
        raise ModelError(
            f"num_layers is {num_layers} but the model has {count} blocks: give at most {count}, "
            "or -1 for all"
        )
    return list(range(count))[0 if num_layers < 0 else count - num_layers :]


def select_targets(linear: list[str], targets: tuple[str, ...] | None) -> list[str]:
    """The linear layers of a block that get adapters: those that a target names or ends, or all.

    Raises ModelError for a target that fits none.
    """
    if targets is None:
        return linear
    for target in targets:
        if not any(("." + name).endswith("." + target) for name in linear):
            raise ModelError(
                f"target_modules names {target!r}, but the linear layers of a block are "
                f"{', '.join(linear)}"
            )
    ends = tuple("." + target for target in targets)
    return [name for name in linear if ("." + name).endswith(ends)]


def initial_lora(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """A starting weight: B is 0, A uniform in ±1/√in, the same on every framework for a seed."""
    if name.endswith("lora_B"):
        return np.zeros(shape, np.float32)
    bound = 1 / np.sqrt(shape[1])
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return generator.uniform(-bound, bound, shape).astype(np.float32)


def save_adapter(
    folder: Path, adapter: Adapter, *, base_model: str, peft_prefix: str, mlx_prefix: str
) -> None:
    """Write a folder that PEFT and mlx-lm both open.

    `peft_prefix` and `mlx_prefix` are where the blocks sit in either library's model, such as
    `model.layers` (or `transformer.h` and `model.h` for GPT-2).
    """
    peft, mlx = {}, {}
    for name, weight in adapter.weights.items():
        module, matrix = name.rsplit(".", 1)
        peft[f"base_model.model.{peft_prefix}.{name}.weight"] = weight
        mlx[f"{mlx_prefix}.{module}.{matrix.lower()}"] = np.ascontiguousarray(weight.T)
    metadata = {"format": "pt"}
    write_atomically(folder / PEFT_FILE, lambda path: save_file(peft, path, metadata))
    write_atomically(folder / MLX_FILE, lambda path: save_file(mlx, path, metadata))
    write_json(folder / CONFIG_FILE, _config(adapter, base_model))


def _config(adapter: Adapter, base_model: str) -> dict[str, Any]:
    """PEFT's keys and mlx-lm's keys side by side; each library reads its own."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": adapter.rank,
        "lora_alpha": adapter.rank * adapter.scale,
        "lora_dropout": adapter.dropout,
        "target_modules": [module.rsplit(".", 1)[-1] for module in adapter.modules()],
        "layers_to_transform": adapter.blocks(),
        "bias": "none",
        "inference_mode": True,
        "fine_tune_type": "lora",
        "num_layers": adapter.num_layers,
        "lora_parameters": dict(
            zip(
                LORA_KEYS,
                (adapter.rank, adapter.scale, adapter.dropout, adapter.modules()),
                strict=True,
            )
        ),
    }


def load_adapter(folder: Path) -> Adapter:
    """Read an adapter of ours, PEFT's or mlx-lm's; raises ModelError where it cannot."""
    config = _read_config(folder)
    try:
        rank, scale, dropout = _strength(folder, config)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{folder / CONFIG_FILE} is damaged ({error!r}): give the folder of a LoRA adapter"
        ) from None
    weights = _read_weights(folder)
    blocks = {int(name.split(".", 1)[0]) for name in weights}
    return Adapter(rank, scale, dropout, int(config.get("num_layers", len(blocks))), weights)


def _strength(folder: Path, config: dict[str, Any]) -> tuple[int, float, float]:
    """Rank, scale and dropout, from whichever library's keys are there."""
    if "lora_parameters" in config:
        parameters = config["lora_parameters"]
        dropout = float(parameters.get("dropout", 0.0))
        return int(parameters["rank"]), float(parameters["scale"]), dropout
    if config.get("peft_type") == "LORA":
        _refuse_unsupported(folder, config)
        rank, dropout = int(config["r"]), float(config.get("lora_dropout") or 0.0)
        scale = float(config["lora_alpha"]) / (rank**0.5 if config.get("use_rslora") else rank)
        return rank, scale, dropout
    raise ModelError(
        f"{folder / CONFIG_FILE} describes neither a PEFT nor an mlx-lm LoRA adapter: "
        "give a LoRA adapter folder"
    )


def _refuse_unsupported(folder: Path, config: dict[str, Any]) -> None:
    for key in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save"):
        if config.get(key):
            raise ModelError(f"{folder / CONFIG_FILE} sets {key}, which is not supported here")


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ModelError(f"{folder} holds no {CONFIG_FILE}: give the folder of a LoRA adapter")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error}): the adapter is damaged") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path} is no JSON object: the adapter is damaged")
    return config


def _read_weights(folder: Path) -> dict[str, np.ndarray]:
    """Weights by canonical name, from PEFT's file or else mlx-lm's."""
    for file in (PEFT_FILE, MLX_FILE):
        path = folder / file
        if path.is_file():
            return dict(_canonical(path, key, value) for key, value in _load(path).items())
    raise ModelError(
        f"{folder} holds neither {PEFT_FILE} nor {MLX_FILE}: the adapter is incomplete"
    )


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path} cannot be read ({error}): the adapter is damaged") from None


def _canonical(path: Path, key: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    match = _KEY.match(key)
    ending = re.search(r"\.lora_(A\.weight|B\.weight|a|b)$", key)
    if match is None or ending is None:
        raise ModelError(f"{path} holds {key!r}, which is not a LoRA weight of a block")
    letter = ending.group(1)[0]
    weight = value if letter.isupper() else np.ascontiguousarray(value.T)
    name = f"{match['block']}.{match['module']}.lora_{letter.upper()}"
    return name, weight.astype(np.float32)


def check_shapes(weights: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ModelError where names or shapes of arrays are not the expected ones."""
    missing = sorted(set(expected) - set(weights))
    extra = sorted(set(weights) - set(expected))
    if missing or extra:
        raise ModelError(
            f"the weights do not fit what this run trains: {len(missing)} are missing"
            f"{_first(missing)}, {len(extra)} are not expected{_first(extra)}; give the model and "
            "the adapter options that they were made with"
        )
    for name, shape in expected.items():
        if tuple(weights[name].shape) != shape:
            raise ModelError(
                f"the weight {name} has shape {tuple(weights[name].shape)}, expected {shape}: "
                "it belongs to another model or rank"
            )


def _first(names: list[str]) -> str:
    return f" (such as {names[0]})" if names else ""
