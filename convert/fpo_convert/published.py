"""Published autoencoders by model, from the table in published.yaml."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpo_core.config import ModelConfig
from fpo_core.errors import SaeError
from fpo_core.models.folder import ModelFolder

TABLE = Path(__file__).with_name("published.yaml")
RESIDUAL = ("resid_post", "resid_pre")
_COPIES = re.compile(r"(-(bf16|fp16|mlx|\d+-?bit|q\d\w*|qat|unsloth|bnb))+$")
"""What re-uploads of a model add to its name."""


@dataclass(frozen=True)
class Published:
    """One autoencoder that `convert_sae` can fetch."""

    source: str
    layer: int
    site: str
    width: int
    """d_sae."""
    l0: str
    """Mean active features per token: a number, a range, or ? where unknown."""
    encoder_bytes: int
    """Size of the encoder in float32, the part that training uses."""
    recommended: bool = False


@dataclass(frozen=True)
class Listing:
    """The autoencoders for a model."""

    trained_on: str
    exact: bool
    """False if the model only has the shape of the one they were trained on."""
    saes: list[Published]


def list_saes(model: str, num_layers: int = -1) -> Listing:
    """Autoencoders that fit a model, the recommended one first, then by depth, deepest first.

    `model` is a hub name or a folder; `num_layers` is the number of last blocks that are trained.
    The recommended one is the deepest on the residual stream that reads after a trained block:
    before them training changes nothing. Raises SaeError where the table has nothing that fits.
    """
    entries = _table()
    entry, exact = _by_name(entries, model), True
    if entry is None:
        entry, exact = _by_shape(entries, model), False
    if entry is None:
        known = ", ".join(e["model"] for e in entries)
        raise SaeError(
            f"no published autoencoder for {model} is in the table, which has {known}: give "
            "convert_sae a repository or folder, or train one as our examples do"
        )
    return Listing(entry["model"], exact, _ordered(list(_expand(entry)), entry, num_layers))


def _table() -> list[dict[str, Any]]:
    import yaml

    return yaml.safe_load(TABLE.read_text(encoding="utf-8"))


def _by_name(entries: list[dict[str, Any]], model: str) -> dict[str, Any] | None:
    """The entry for a hub name, a re-upload of it, or a folder of that name."""
    wanted = _COPIES.sub("", Path(model).name.lower())
    return next((e for e in entries if Path(e["model"]).name.lower() == wanted), None)


def _by_shape(entries: list[dict[str, Any]], model: str) -> dict[str, Any] | None:
    if not Path(model).expanduser().is_dir():
        return None
    folder = ModelFolder.locate(ModelConfig(model=model), weights=False)
    size = folder.config.get("hidden_size", folder.config.get("n_embd"))
    shape = [folder.config.get("model_type"), folder.layers, size]
    return next((e for e in entries if e["shape"] == shape), None)


def _expand(entry: Mapping[str, Any]) -> Iterator[Published]:
    _, blocks, d_in = entry["shape"]
    for row in entry["saes"]:
        by_layer = row.get("l0_by_layer")
        first, last = row.get("layers", (0, blocks - 1))
        for layer in range(first, last + 1):
            yield Published(
                source=row["source"].format(layer=layer, l0=by_layer and by_layer[layer]),
                layer=layer,
                site=row["site"],
                width=row["width"],
                l0=str(by_layer[layer]) if by_layer else _range(row.get("l0")),
                encoder_bytes=4 * row["width"] * (d_in + 2),
            )


def _range(bounds: list[int] | None) -> str:
    if bounds is None:
        return "?"
    low, high = bounds
    return str(low) if low == high else f"{low}–{high}"


def _ordered(saes: list[Published], entry: Mapping[str, Any], num_layers: int) -> list[Published]:
    """The recommended one, then deepest first; ties in the table's order."""
    first_trained = 0 if num_layers < 0 else max(0, entry["shape"][1] - num_layers)
    ordered = sorted(saes, key=lambda sae: -_depth(sae))
    best = next((s for s in ordered if s.site in RESIDUAL and _depth(s) >= first_trained + 1), None)
    if best is None:
        return ordered
    marked = Published(**{**vars(best), "recommended": True})
    return [marked, *(sae for sae in ordered if sae is not best)]


def _depth(sae: Published) -> int:
    """The number of blocks that have run at its hook."""
    return sae.layer + (sae.site != "resid_pre")
