"""Published autoencoders by model, the fittest first: what `list_saes` shows."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from math import log2
from pathlib import Path
from typing import Any

from fpo_convert import releases
from fpo_convert.releases import Release
from fpo_core.config import ModelConfig
from fpo_core.errors import SaeError
from fpo_core.models.folder import ModelFolder
from fpo_core.models.lineage import family_key, model_names, same_key

MODELS = Path(__file__).with_name("published.yaml")
RESIDUAL = ("resid_post", "resid_pre", "resid_mid")
_SITES = (RESIDUAL, ("mlp_out",), ("attn_out",), ("z",), ("mlp_in",))
_WIDTH, _L0 = 16384, 100
"""The width and the number of active features that most published measurements are about."""
_UNREADABLE = ("temporal",)


@dataclass(frozen=True)
class Published:
    """One autoencoder that `convert_sae` can fetch."""

    source: str
    layer: int
    site: str
    width: int | None
    """d_sae, where its name says it."""
    l0: str
    """Mean active features of a token, or ?."""
    encoder_bytes: int | None
    """Of the encoder in float32, which is what training maps."""
    trained_on: str
    """The model whose activations it was trained on."""
    exact: bool
    """Whether that is the model asked for, or a copy of it, and not one of its family."""
    recommended: bool = False


@dataclass(frozen=True)
class Listing:
    """The autoencoders for a model."""

    trained_on: str
    """The model that the recommended one, or the first, was trained on."""
    exact: bool
    """False where the model is only related to that one, or of its shape."""
    saes: list[Published]


def list_saes(model: str, num_layers: int = -1) -> Listing:
    """Autoencoders that fit a model: the recommended first, then by fitness.

    Fitness is: trained on this model, on the residual stream, deep, about 16,384 features of which
    about 100 fire. `model` is a hub name or a folder; `num_layers` is how many last blocks are
    trained. Recommended is the fittest residual one that reads at or above the first trained block:
    above it only what the constraint can see. Raises SaeError where none is known.
    """
    names, shape = _lineage(model)
    families = {family_key(name) for name in names}
    by_shape = False
    entries = _of_families(families)
    if not entries and shape is not None:
        by_shape, families = True, _of_shape(shape)
        entries = _of_families(families)
    if not entries:
        known = ", ".join(_models())
        raise SaeError(
            f"no published autoencoder for {model} is in the table, which has those of {known}: "
            "convert a repository or folder by its own name, or train one (fpo sae train)"
        )
    size = next(size for key, size in _sizes().items() if key in families)
    same = set() if by_shape else {same_key(_hub_name(name)) for name in names}
    saes = sorted((_published(entry, size, same) for entry in entries), key=_unfitness)
    saes = _recommended_first(saes, size[1], num_layers)
    return Listing(saes[0].trained_on, saes[0].exact, saes)


def _lineage(model: str) -> tuple[list[str], tuple[Any, ...] | None]:
    """What a model is called, and its type, blocks and width where it is a folder."""
    if not Path(model).expanduser().is_dir():
        return [model], None
    folder = ModelFolder.locate(ModelConfig(model=model), weights=False)
    return model_names(folder), (folder.config.get("model_type"), folder.layers, folder.width)


@cache
def _models() -> dict[str, list[Any]]:
    import yaml

    return yaml.safe_load(MODELS.read_text(encoding="utf-8"))


@cache
def _sizes() -> dict[str, list[Any]]:
    return {family_key(name): size for name, size in _models().items()}


def _of_shape(shape: tuple[Any, ...]) -> set[str]:
    return {key for key, size in _sizes().items() if tuple(size[:3]) == shape}


def _of_families(families: Collection[str]) -> list[Release]:
    """All that can be read, once per place; of two names for one, that which says more."""
    models = frozenset(name for name in releases.models() if family_key(name) in families)
    by_address: dict[str, Release] = {}
    for release in releases.of_models(models):
        other = by_address.get(release.address)
        says_more = other is None or (release.l0 and not other.l0)
        if release.loader not in _UNREADABLE and says_more:
            by_address[release.address] = release
    return list(by_address.values())


def _published(release: Release, size: list[Any], same: Collection[str]) -> Published:
    d_in = size[3] if release.site == "z" else size[2]
    return Published(
        source=release.address,
        layer=release.layer,
        site=release.site,
        width=release.width,
        l0=f"{release.l0:g}" if release.l0 else "?",
        encoder_bytes=4 * release.width * (d_in + 2) if release.width else None,
        trained_on=_hub_name(release.model),
        exact=same_key(_hub_name(release.model)) in same,
    )


@cache
def _hub_name(model: str) -> str:
    """A model's name on the hub, where its short one is of a family in the list of models."""
    if "/" in model:
        return model
    name = next((n for n in _models() if family_key(n) == family_key(model)), model)
    return f"{name}-it" if model.endswith("-it") else name


def _unfitness(sae: Published) -> tuple[Any, ...]:
    """Smaller is fitter; unknown widths and L0 count as far off."""
    site = next(n for n, sites in enumerate(_SITES) if sae.site in sites)
    width = abs(log2(sae.width / _WIDTH)) if sae.width else 9.0
    l0 = abs(log2(float(sae.l0) / _L0)) if sae.l0 != "?" else 9.0
    return not sae.exact, site, -_depth(sae), width, l0, sae.source


def _depth(sae: Published) -> int:
    """Blocks that have run where it reads."""
    return sae.layer + (sae.site != "resid_pre")


def _recommended_first(saes: list[Published], blocks: int, num_layers: int) -> list[Published]:
    first_trained = 0 if num_layers < 0 else max(0, blocks - num_layers)
    seen = (s for s in saes if s.site in RESIDUAL[:2] and _depth(s) >= first_trained + 1)
    best = next(seen, None)
    if best is None:
        return saes
    return [replace(best, recommended=True), *(sae for sae in saes if sae is not best)]
