"""The table of published autoencoders that SAELens knows: names, addresses, what files leave out.

`benchmarks/make_releases.py` writes it; it ships with the package, so no name needs sae-lens.
"""

import difflib
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("published_releases.json.gz")
_SUGGESTIONS = 3
_ALIKE = 0.75
"""How alike two names are to be suggested for one another, from 0 to 1."""


@dataclass(frozen=True)
class Release:
    """One published autoencoder: where its files are, and what they leave out."""

    release: str
    id: str
    model: str
    """The model whose activations it was trained on, as the table calls it."""
    repo: str
    path: str
    loader: str
    """SAELens's loader for the repository's format."""
    site: str
    layer: int
    width: int | None
    """d_sae, where a name says it."""
    l0: float | None
    norm_factor: float | None
    """√d_in / mean‖x‖ of its training, where the files don't hold it."""
    neuronpedia_id: str
    overrides: Mapping[str, Any]
    """Keys that replace those of the checkpoint's configuration."""

    @property
    def name(self) -> str:
        """What `fpo convert sae` takes, and SAELens as two arguments."""
        return f"{self.release}/{self.id}"

    @property
    def address(self) -> str:
        """The same autoencoder on the hub."""
        return f"{self.repo}:{self.path}"


def by_name(name: str) -> Release | None:
    """The autoencoder that `release/sae_id` names, or None."""
    release, _, sae_id = name.partition("/")
    entry = _entries().get(release)
    rows = entry["saes"] if entry else ()
    return next((_release(release, row) for row in rows if row[0] == sae_id), None)


def at_address(repo: str, path: str) -> Release | None:
    """What the table says about a place in a repository, whichever of its names has most to say."""
    path = path.rstrip("/")
    releases = [r for r in _of_repository(repo) if r.path == path]
    return max(releases, key=_says, default=None)


def suggestions(name: str) -> list[str]:
    """Names that may be meant by one that leads nowhere, the likeliest first.

    A colon for the slash of a name or the reverse, an id of another release of that kind (such as a
    `-canonical` one), a release without an id, and slips of spelling are seen through.
    """
    if rewritten := _rewritten(name):
        return rewritten
    release, _, sae_id = name.replace(":", "/", 1).partition("/")
    exact: list[str] = []
    close: list[str] = []
    for likely in _alike(release):
        ids = [row[0] for row in _entries()[likely]["saes"]]
        exact += [f"{likely}/{sae_id}"] if sae_id in ids else []
        near = difflib.get_close_matches(sae_id, ids, _SUGGESTIONS, 0.0) if sae_id else ids
        close += [f"{likely}/{other}" for other in near[:_SUGGESTIONS]]
    return (exact or close)[:_SUGGESTIONS]


def _alike(release: str) -> list[str]:
    """Releases called so or nearly so, such as a `-canonical` one beside the full one."""
    names = _entries()
    stem = release.removesuffix("-canonical")
    related = [name for name in (release, stem, f"{stem}-canonical") if name in names]
    return related or difflib.get_close_matches(release, names, _SUGGESTIONS, _ALIKE)


def is_release(name: str) -> bool:
    """Whether a release is called so."""
    return name in _entries()


def all_releases() -> list[Release]:
    """The whole table."""
    return [_release(name, row) for name, entry in _entries().items() for row in entry["saes"]]


def of_models(models: frozenset[str]) -> list[Release]:
    """All that were trained on one of these models, as the table calls them."""
    entries = ((n, e) for n, e in _entries().items() if e["model"] in models)
    return [_release(name, row) for name, entry in entries for row in entry["saes"]]


def models() -> list[str]:
    """Every model of the table, once."""
    return sorted({entry["model"] for entry in _entries().values()})


def _rewritten(name: str) -> list[str]:
    """The name with a slash for its colon, or the reverse, where that is in the table."""
    names: list[str] = []
    if by_name(name.replace(":", "/", 1)):
        names.append(name.replace(":", "/", 1))
    owner, _, rest = name.partition("/")
    repo, _, path = rest.partition("/")
    if path and at_address(f"{owner}/{repo}", path):
        names.append(f"{owner}/{repo}:{path}")
    return names


def _says(release: Release) -> tuple[bool, bool, bool]:
    norm = release.norm_factor is not None
    return bool(release.overrides), norm, bool(release.neuronpedia_id)


def _of_repository(repo: str) -> list[Release]:
    entries = ((n, e) for n, e in _entries().items() if e["repo"] == repo)
    return [_release(name, row) for name, entry in entries for row in entry["saes"]]


def _release(name: str, row: list[Any]) -> Release:
    sae_id, path, site, layer, width, l0, norm_factor, neuronpedia_id = row
    entry = _entries()[name]
    return Release(
        release=name,
        id=sae_id,
        model=entry["model"],
        repo=entry["repo"],
        path=path,
        loader=entry["loader"],
        site=site,
        layer=layer,
        width=width,
        l0=l0,
        norm_factor=norm_factor,
        neuronpedia_id=neuronpedia_id or "",
        overrides=entry["overrides"],
    )


@cache
def _entries() -> dict[str, Any]:
    return json.loads(gzip.decompress(TABLE.read_bytes()))["releases"]
