"""Adapters made elsewhere, for PEFT, mlx-lm or both."""

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
    """What was converted."""

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

    `model` is the base; without it, the one that the adapter names counts where it lies on this
    machine. Raises ModelError naming what cannot be expressed. `out` is complete or absent.
    """
    found = read_adapter(source)
    named = model or found.base_model
    base = _base(model, found.base_model)
    layout = _layout(source, found.blocks_path, base)
    adapter = found.adapter if base is None else load_adapter(source, base.layers)
    with new_folder(out) as folder:
        save_adapter(folder, adapter, base_model=named, layout=layout, to=to)
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
        base_model=named,
    )


def _base(given: str | None, named: str) -> ModelFolder | None:
    """The base model's description: as given, or as named by the adapter where that is a folder."""
    if given is None and not (named and (Path(named) / "config.json").is_file()):
        return None
    return ModelFolder.locate(ModelConfig(model=given or named), weights=False)


def _layout(source: Path, path: str, base: ModelFolder | None) -> Layout:
    """How both libraries spell the adapter's model; ModelError where that cannot be told."""
    if base is not None:
        if path not in (base.layout.peft, base.layout.mlx):
            raise ModelError(
                f"{source} adapts {path}, but the blocks of {base.name} are at {base.layout.peft}: "
                "give the model that the adapter was made for"
            )
        return base.layout
    known = layouts_with(path)
    if len(known) != 1:
        raise ModelError(
            f"{source} adapts {path}, and more than one family or none is known to have its blocks "
            "there: give its base as model"
        )
    return known[0]
