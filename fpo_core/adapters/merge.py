"""Merging an adapter into its model's checkpoint, tensor by tensor, without a framework.

Weights stay under their names in their files, so whatever opens the base opens the result.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fpo_core.adapters.lora import MAGNITUDE, Adapter, row_norms
from fpo_core.errors import ModelError, SaeError
from fpo_core.io.atomic import write_json
from fpo_core.io.reader import FLOAT_CODES
from fpo_core.io.writer import Tensor, float_tensor, write_tensors
from fpo_core.models.folder import INDEX_FILE, ModelFolder, mlx_lm_settings
from fpo_core.models.layout import Layout
from fpo_core.models.weights import FLOAT_NAMES, Dequantiser, ModelWeights

_WEIGHT = re.compile(r"^(?P<path>.*?)\.?(?P<place>\d+\..+)\.weight$")


@dataclass(frozen=True)
class Fused:
    """What was written."""

    dtypes: list[str]
    """Precisions of the weights."""
    bytes: int


def write_fused(
    model: ModelFolder,
    adapter: Adapter,
    folder: Path,
    *,
    dequantiser: Dequantiser | None = None,
    dtype: str | None = None,
) -> Fused:
    """Write the merged model, with tokenizer, settings and licence, into a folder.

    Weights stay in their precision unless `dtype` is given; quantised ones, which a `dequantiser`
    reads, get that of their scales. Raises ModelError where the checkpoint lacks an adapted weight,
    or a precision cannot hold a number.
    """
    try:
        stored = ModelWeights.open(model, dequantiser)
        places = _places(stored, model, adapter)
        code = None if dtype is None else FLOAT_CODES[dtype]
        plans = {
            file.path.name: [
                _tensor(stored, name, places.get(name), adapter, model.layout, code)
                for name in stored.names(file)
            ]
            for file in stored.files
        }
        folder.mkdir(parents=True, exist_ok=True)
        for name, tensors in plans.items():
            write_tensors(folder / name, tensors, {"format": "pt"})
    except SaeError as error:
        raise ModelError(f"the adapter cannot be merged into {model.name}: {error}") from None
    if len(plans) > 1:
        _write_index(folder / INDEX_FILE, plans)
    written = [tensor for tensors in plans.values() for tensor in tensors]
    dtypes = sorted({FLOAT_NAMES[t.dtype] for t in written if t.dtype in FLOAT_NAMES})
    _write_config(model, folder, dtypes[0] if len(dtypes) == 1 else None)
    model.copy_companions(folder)
    return Fused(dtypes, sum(tensor.size for tensor in written))


def merge(weight: np.ndarray, adapter: Adapter, place: str) -> np.ndarray:
    """W + scale · B A, (out, in); for DoRA, its rows scaled to the magnitudes m.

    DoRA (arXiv:2402.09353, equation 5): m · (W + scale · B A) / ‖W + scale · B A‖, norms by row.
    """
    a, b = adapter.weights[f"{place}.lora_A"], adapter.weights[f"{place}.lora_B"]
    if weight.shape != (len(b), a.shape[1]):
        raise ModelError(
            f"the adapter at {place} is for a weight of shape {(len(b), a.shape[1])}, the model "
            f"has {weight.shape}: give the model that the adapter was trained on"
        )
    moved = weight + np.float32(adapter.scale) * (b @ a)
    magnitude = adapter.weights.get(f"{place}.{MAGNITUDE}")
    return moved if magnitude is None else (magnitude / row_norms(moved))[:, None] * moved


def _places(stored: ModelWeights, model: ModelFolder, adapter: Adapter) -> dict[str, str]:
    """The adapted module of each stored weight that has one; ModelError where one has no weight."""
    adapted = set(adapter.places())
    places: dict[str, str] = {}
    for name in (name for file in stored.files for name in stored.names(file)):
        match = _WEIGHT.match(name)
        if match and match["path"] in model.layout.stored and match["place"] in adapted:
            places[name] = match["place"]
    missing = sorted(adapted - set(places.values()))
    if missing:
        raise ModelError(
            f"{model.name} stores no weight {model.layout.stored[0]}.{missing[0]}, nor "
            f"{len(missing) - 1} others that the adapter adapts: give the model it was trained on, "
            "in the layout that both transformers and mlx-lm open"
        )
    return places


def _tensor(
    stored: ModelWeights,
    name: str,
    place: str | None,
    adapter: Adapter,
    layout: Layout,
    dtype: str | None,
) -> Tensor:
    """The tensor to write under a name: merged, cast, or its bytes unchanged."""
    before = stored.dtype(name)
    code = dtype if dtype is not None and before in FLOAT_NAMES else before
    # Unchanged bytes are not checked: a weight that is not finite was so in the base.
    if place is None and code == before and not stored.quantised(name):
        return Tensor(name, code, stored.shape(name), lambda: [stored.stored(name)])

    def whole() -> list[np.ndarray]:
        weight = stored.weight(name)
        if place is None:
            return [weight]
        if layout.transposed:
            return [merge(weight.T, adapter, place).T]
        return [merge(weight, adapter, place)]

    return float_tensor(name, code, stored.shape(name), whole)


def _write_index(path: Path, plans: Mapping[str, list[Tensor]]) -> None:
    names = {tensor.name: file for file, tensors in plans.items() for tensor in tensors}
    size = sum(tensor.size for tensors in plans.values() for tensor in tensors)
    write_json(path, {"metadata": {"total_size": size}, "weight_map": names})


def _write_config(model: ModelFolder, folder: Path, dtype: str | None) -> None:
    """config.json for both libraries, without quantisation, with the precision as written."""
    settings = dict(model.settings)
    for key in ("quantization", "quantization_config"):
        settings.pop(key, None)
    for key in ("dtype", "torch_dtype"):
        if key in settings and dtype is not None:
            settings[key] = dtype
    write_json(folder / "config.json", settings | mlx_lm_settings(settings))
