"""Reading adapter folders of this package, PEFT or mlx-lm into the canonical form."""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fpo_core.adapters.config import AdapterSettings, read_config, read_settings
from fpo_core.adapters.integrity import check_hashes
from fpo_core.adapters.lora import MAGNITUDE, Adapter, fit
from fpo_core.adapters.writer import CONFIG_FILE, MLX_FILE, MLX_MATRICES, PEFT_FILE
from fpo_core.errors import ModelError
from fpo_core.io.reader import open_safetensors

_KEY = re.compile(
    r"^(?:base_model\.model\.)?(?P<path>.*?)\.?(?P<place>\d+\..+)\."
    r"(?:(?P<peft>lora_[AB](?=\.weight)|lora_magnitude_vector)(?:\.weight)?|(?P<mlx>lora_[ab]|m))$"
)
Arrays = dict[str, np.ndarray]
VALUE_FILE = "fpo_value.json"
"""What a value function has beside its adapter (`fpo_core.values.folder`)."""


@dataclass(frozen=True)
class AdapterSource:
    """An adapter, and what its folder states about the model."""

    adapter: Adapter
    blocks_path: str
    """Path of the blocks in its keys, such as `model.layers`."""
    base_model: str
    """The base that its configuration names, or empty."""


def load_adapter(folder: Path, layers: int | None = None, *, of_value: bool = False) -> Adapter:
    """The adapter of a folder; `layers` is the number of blocks of its model, where known.

    That of a value function is no policy, and read only `of_value`.

    Per-module ranks are padded with zeros, per-module scales go into B (exact where their ratio is
    a power of two). Raises ModelError for anything but LoRA and DoRA on linear layers of blocks.
    """
    if not of_value and (folder / VALUE_FILE).is_file():
        raise ModelError(
            f"{folder} is a value function, which writes no text: give it as value, beside a model"
        )
    return read_adapter(folder, layers).adapter


def read_adapter(folder: Path, layers: int | None = None) -> AdapterSource:
    """As `load_adapter`, with what the folder states about the model."""
    settings = read_settings(folder)
    file = _weight_file(folder)
    check_hashes(folder, read_config(folder), file.name)
    path, modules = _modules(file)
    ranks = {matrices["lora_A"].shape[0] for matrices in modules.values()}
    if not settings.ranks_vary and ranks != {settings.rank}:
        raise ModelError(
            f"{file} holds matrices of rank {max(ranks)}, but {CONFIG_FILE} says {settings.rank}: "
            "the adapter is damaged"
        )
    rank = max(ranks)
    scales = {
        place: settings.scale_at(f"{path}.{place}".lstrip("."), matrices["lora_A"].shape[0])
        for place, matrices in modules.items()
    }
    scale = _common_scale(settings, set(scales.values()))
    weights: Arrays = {}
    for place, matrices in modules.items():
        fitted = fit(matrices, rank, scales[place] / scale)
        weights |= {f"{place}.{name}": array for name, array in fitted.items()}
    adapter = Adapter(rank, scale, settings.dropout, 0, weights)
    count = _num_layers(adapter, settings, layers, folder)
    return AdapterSource(
        Adapter(rank, scale, settings.dropout, count, weights), path, settings.base_model
    )


def _weight_file(folder: Path) -> Path:
    for name in (PEFT_FILE, MLX_FILE):
        if (folder / name).is_file():
            return folder / name
    if (folder / "adapter_model.bin").is_file():
        raise ModelError(
            f"{folder} holds its weights in adapter_model.bin, a pickle, and none is read here: "
            "load it with PEFT and save it again as safetensors"
        )
    raise ModelError(
        f"{folder} holds neither {PEFT_FILE} nor {MLX_FILE}: the adapter is incomplete"
    )


def _modules(path: Path) -> tuple[str, dict[str, Arrays]]:
    """The path of the blocks, and the float32 matrices of every adapted module."""
    file = open_safetensors(path, _damaged)
    paths: set[str] = set()
    modules: dict[str, Arrays] = defaultdict(dict)
    for key in file.entries:
        match = _KEY.match(key)
        if match is None:
            raise ModelError(
                f"{path} holds {key!r}, which is no LoRA or DoRA weight of a linear layer of a "
                "block: only those can be carried by both libraries"
            )
        paths.add(match["path"])
        name = match["peft"] or next(k for k, v in MLX_MATRICES.items() if v == match["mlx"])
        value = _finite(path, key, file.rows(key))
        oriented = value if match["peft"] else value.T  # mlx-lm stores both matrices transposed
        modules[match["place"]][name] = np.ascontiguousarray(oriented, np.float32)
    if len(paths) != 1:
        raise ModelError(
            f"{path} adapts {' and '.join(sorted(paths)) or 'nothing'}, expected the blocks of one "
            "language model"
        )
    _check_complete(path, modules)
    return paths.pop(), modules


def _finite(path: Path, key: str, value: np.ndarray) -> np.ndarray:
    if np.isfinite(value).all():
        return value
    raise ModelError(
        f"{path} holds a number in {key!r} that is not finite: take an adapter from before its run "
        "diverged"
    )


def _damaged(text: str) -> ModelError:
    return ModelError(f"{text}: the adapter is damaged, download or save it again")


def _check_complete(path: Path, modules: dict[str, Arrays]) -> None:
    """Raise ModelError unless all modules have A, B and, if one has it, m, in matching shapes."""
    needed = {"lora_A", "lora_B"}
    if any(MAGNITUDE in matrices for matrices in modules.values()):
        needed.add(MAGNITUDE)
    for place, matrices in modules.items():
        missing = needed - set(matrices)
        if missing:
            raise ModelError(f"{path} has no {min(missing)} of {place}: the adapter is incomplete")
        a, b, m = matrices["lora_A"], matrices["lora_B"], matrices.get(MAGNITUDE)
        fits = a.ndim == b.ndim == 2 and a.shape[0] == b.shape[1] and len(a) > 0
        if not fits or (m is not None and m.shape != b.shape[:1]):
            raise ModelError(
                f"{path} has A of shape {a.shape} and B of shape {b.shape} at {place}, expected "
                "those of one linear layer, (rank, in) and (out, rank)"
            )


def _common_scale(settings: AdapterSettings, scales: set[float]) -> float:
    return settings.scale if settings.scale in scales else max(scales)


def _num_layers(
    adapter: Adapter, settings: AdapterSettings, layers: int | None, folder: Path
) -> int:
    """The number of last blocks that include the adapted ones; −1 where the model is unknown."""
    first, last = adapter.blocks()[0], adapter.blocks()[-1]
    if layers is None:
        return -1 if settings.num_layers is None else settings.num_layers
    if last >= layers:
        raise ModelError(
            f"{folder} adapts block {last}, but the model has {layers} blocks: give the model that "
            "the adapter was trained on"
        )
    return layers - first
