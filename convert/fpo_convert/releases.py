"""SAELens release names: looked up in the installed sae-lens package, else in a short table."""

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fpo_convert.formats.registry import FORMATS
from fpo_core.errors import SaeError

_FORMATS = {loader: name for name, format in FORMATS.items() for loader in format.loaders}
# Releases whose repository and paths follow from their names, for when sae-lens is not installed.
_PATTERNS = (
    (r"(gemma-scope-\d+b-(?:pt|it)-(?:res|mlp|att))/(.+)", r"google/\1", r"\2", "gemma-scope"),
    (
        r"(gemma-scope-2-\d+[mb]-(?:pt|it))-res((?:-all)?)/(.+)",
        r"google/\1",
        r"resid_post\2/\3",
        "gemma-scope-2",
    ),
    (
        r"(gemma-scope-2-\d+[mb]-(?:pt|it))-mlp((?:-all)?)/(.+)",
        r"google/\1",
        r"mlp_out\2/\3",
        "gemma-scope-2",
    ),
    (
        r"(gemma-scope-2-\d+[mb]-(?:pt|it))-att((?:-all)?)/(.+)",
        r"google/\1",
        r"attn_out\2/\3",
        "gemma-scope-2",
    ),
    (
        r"llama_scope_lx([rma])_(\d+)x/l(\d+)\1_\2x",
        r"fnlp/Llama3_1-8B-Base-LX\U1-\2x",
        r"Llama3_1-8B-Base-L\3\U1-\2x",
        "llama-scope",
    ),
    (r"gpt2-small-res-jb/(.+)", r"jbloom/GPT2-Small-SAEs-Reformatted", r"\1", "sae-lens"),
    (
        r"gpt2-small-res-jb-feature-splitting/(.+)",
        r"jbloom/GPT2-Small-Feature-Splitting-Experiment-Layer-8",
        r"\1",
        "sae-lens",
    ),
    (
        r"pythia-70m-deduped-(res|mlp|att)-sm/blocks\.(\d+)\.hook_(?:resid_post|mlp_out|attn_out)",
        r"ctigges/pythia-70m-deduped__\1-sm_processed",
        r"\2-\1-sm",
        "sae-lens",
    ),
)


@dataclass(frozen=True)
class Release:
    """An autoencoder of a release: its path in a hub repository, its format, and what the table
    states in addition to its files.
    """

    name: str
    repo: str
    path: str
    format: str
    norm_factor: float | None = None
    neuronpedia_id: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)


def find_release(source: str) -> Release | None:
    """The autoencoder called `release/sae_id`, or None for an unknown release.

    Raises SaeError for an unknown id of a known release, and for a format without a reader.
    """
    name, _, sae_id = source.partition("/")
    entry = _table().get(name)
    if entry is not None:
        return _from_table(name, sae_id, entry)
    for pattern, repo, path, format in _PATTERNS:
        match = re.fullmatch(pattern, source)
        if match:
            return Release(name, _fill(match, repo), _fill(match, path), format)
    return None


def _fill(match: re.Match[str], template: str) -> str:
    """Groups in place of \\1 … and, in upper case, \\U1; '-all' becomes '_all'."""
    text = re.sub(r"\\U(\d)", lambda m: match[int(m[1])].upper(), template)
    return match.expand(text).replace("-all/", "_all/")


def _from_table(name: str, sae_id: str, entry: Mapping[str, Any]) -> Release:
    saes = {str(sae["id"]): sae for sae in entry["saes"]}
    if sae_id not in saes:
        known = ", ".join(list(saes)[:5])
        raise SaeError(
            f"release {name} has no autoencoder {sae_id!r}, expected one of its {len(saes)}, such "
            f"as {known}: correct the name"
        )
    loader = entry.get("conversion_func") or "sae_lens"
    if loader not in _FORMATS:
        raise SaeError(
            f"release {name} is in the format {loader!r}, for which there is no reader, expected "
            f"one of {', '.join(_FORMATS)}: use another release"
        )
    sae = saes[sae_id]
    return Release(
        name=name,
        repo=str(entry["repo_id"]),
        path=str(sae["path"]),
        format=_FORMATS[loader],
        norm_factor=sae.get("norm_scaling_factor"),
        neuronpedia_id=str(sae.get("neuronpedia") or ""),
        overrides=entry.get("config_overrides") or {},
    )


def _table() -> Mapping[str, Any]:
    """The installed sae-lens package's table, read without importing it; empty without it."""
    spec = importlib.util.find_spec("sae_lens")
    locations = spec.submodule_search_locations if spec else None
    path = Path(next(iter(locations))) / "pretrained_saes.yaml" if locations else None
    if path is None or not path.is_file():
        return {}
    import yaml

    with path.open(encoding="utf-8") as file:
        return yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
