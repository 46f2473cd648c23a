"""Adapters of PEFT or mlx-lm, converted for the other library or both."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fpo_core.adapters.reader import load_adapter, read_adapter
from fpo_core.adapters.writer import Target, save_adapter
from fpo_core.config import ModelConfig
from fpo_core.errors import ModelError
from fpo_core.io.atomic import new_folder
from fpo_core.models.folder import ModelFolder
from fpo_core.models.layout import Layout, layouts_with


@dataclass(frozen=True)
class AdapterReport:
    """What a conversion wrote, in plain values."""

    source: str
    out: str
    to: Target
    fine_tune_type: str
    rank: int
    scale: float
    modules: list[str]
    blocks: list[int]
    num_layers: int
    base_model: str

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


def convert_adapter(
    source: Path, out: Path, *, to: Target = "both", model: str | None = None
) -> AdapterReport:
    """Write a PEFT or mlx-lm adapter as the folder that the other, or both, open.

    `model` is the base; without it, the folder that the adapter names as its base is used, if there
    is one. Raises ModelError naming what cannot be expressed. `out` is complete or absent.
    """
    read = read_adapter(source)
    base_model = model or read.base_model
    base = _base(model, base_model)
    layout = _layout(source, read.blocks_path, base)
    # PEFT lists blocks from the start, mlx-lm counts them from the end: that takes their number.
    adapter = read.adapter if base is None else load_adapter(source, base.layers)
    with new_folder(out) as folder:
        save_adapter(folder, adapter, base_model=base_model, layout=layout, to=to)
    return AdapterReport(
        source=str(source),
        out=str(out),
        to=to,
        fine_tune_type=adapter.fine_tune_type,
        rank=adapter.rank,
        scale=adapter.scale,
        modules=adapter.modules(),
        blocks=adapter.blocks(),
        num_layers=adapter.num_layers,
        base_model=base_model,
    )


def _base(model: str | None, base_model: str) -> ModelFolder | None:
    """The base model's description; None where only the adapter names it, and it is no folder."""
    if model is None and not (base_model and (Path(base_model) / "config.json").is_file()):
        return None
    return ModelFolder.locate(ModelConfig(model=base_model), weights=False)


def _layout(source: Path, path: str, base: ModelFolder | None) -> Layout:
    """The layout of the adapter's model. Raises ModelError where none or several fit."""
    if base is not None:
        if path not in (base.layout.peft, base.layout.mlx):
            raise ModelError(
                f"{source} adapts {path}, but the blocks of {base.name} are at {base.layout.peft}: "
                "give the model that the adapter was trained on"
            )
        return base.layout
    known = layouts_with(path)
    if len(known) != 1:
        raise ModelError(
            f"{source} adapts {path}, where several families or none have their blocks: give its "
            "base as model"
        )
    return known[0]
