"""Write the table of published autoencoders that ships with `fpo_convert`.

    python benchmarks/make_releases.py PATH/TO/sae_lens [--date 2026-11-29]

Reads `pretrained_saes.yaml` of an unpacked sae-lens package and keeps facts alone: names, where the
files are, which loader reads them, and what the table adds to them. Site, layer, width and L0 are
taken from the names, where they say so.
"""

import argparse
import gzip
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from math import log2
from pathlib import Path
from typing import Any

import yaml

OUT = Path(__file__).parents[1] / "convert" / "fpo_convert" / "published_releases.json.gz"
# The overrides that change what is computed; others name data sets.
OVERRIDES = ("normalize_activations", "model_from_pretrained_kwargs")
SITES = (
    (r"transcoder|\bclt\b", "mlp_in"),
    (r"hook_resid_pre|e-res-sm|mistral_7b_layer", "resid_pre"),
    (r"resid_mid|resid-mid", "resid_mid"),
    (r"hook_z|_Hcat_z_|-pt-att/", "z"),
    (r"gemma-scope-2\S*attn_out", "z"),
    (r"attn_out|-att-sm|attn-out|L\d+A-\d+x", "attn_out"),
    (r"mlp_out|-pt-mlp/|-mlp-sm|mlp-out|L\d+M-\d+x", "mlp_out"),
    (r"embedding", "resid_pre"),
)
LAYERS = (
    r"layer_(\d+)",
    r"blocks\.(\d+)\.",
    r"\bL(\d+)[RMA]\b",
    r"_L(\d+)_",
    r"layer(\d+)\.sae",
    r"SAE-l(\d+)",
    r"[:/](\d+)-(?:res|mlp|att)",
)
THOUSANDS = {"k": 1_000, "m": 1_000_000}


def main() -> None:
    """Write the table and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--date", default=f"{datetime.now(UTC):%Y-%m-%d}")
    args = parser.parse_args()
    table = yaml.load((args.package / "pretrained_saes.yaml").read_bytes(), yaml.CSafeLoader)
    content = {
        "source": "the table of pretrained autoencoders of sae-lens",
        "version": _version(args.package),
        "date": args.date,
        "columns": ["id", "path", "site", "layer", "width", "l0", "norm_factor", "neuronpedia_id"],
        "releases": {name: _release(entry) for name, entry in sorted(table.items())},
    }
    # No time in the gzip header: the same table gives the same bytes.
    OUT.write_bytes(gzip.compress(_compact(content), 9, mtime=0))
    count = sum(len(release["saes"]) for release in content["releases"].values())
    print(f"{len(table)} releases, {count} autoencoders, {OUT.stat().st_size} bytes")


def _version(package: Path) -> str:
    found = re.search(r'__version__ = "(.+?)"', (package / "__init__.py").read_text())
    assert found, "the package states its version"
    return found[1]


def _compact(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":"), sort_keys=True).encode()


def _release(entry: Mapping[str, Any]) -> dict[str, Any]:
    overrides = entry.get("config_overrides") or {}
    return {
        "model": _model(entry),
        "repo": entry["repo_id"],
        "loader": entry.get("conversion_func") or "sae_lens",
        "overrides": {key: overrides[key] for key in OVERRIDES if key in overrides},
        "saes": list(_rows(entry)),
    }


def _model(entry: Mapping[str, Any]) -> str:
    """The model, where the repository's name tells that it is the instruction-tuned one."""
    tuned = entry.get("conversion_func") == "gemma_2" and "-it-" in entry["repo_id"]
    return entry["model"].removesuffix("-it") + "-it" if tuned else entry["model"]


def _rows(entry: Mapping[str, Any]) -> Iterator[list[Any]]:
    for sae in entry["saes"]:
        path = str(sae["path"])
        if entry.get("conversion_func") == "mntss_clt_layer_transcoder":  # the layer's number
            path = f"W_enc_{path}.safetensors"
        names = f"{entry['repo_id']}:{path} {sae['id']}"
        if "/clt-" in names:  # layer N of a cross-layer transcoder, which reads the residual there
            site, layer = "resid_mid", int(sae["path"])
        else:
            site, layer = _site(f"{entry['repo_id']}/{path} {sae['id']}"), _layer(names)
        norm = sae.get("norm_scaling_factor")
        yield [
            str(sae["id"]),
            path,
            site,
            layer,
            _width(f"{names} {sae.get('neuronpedia')}"),
            _l0(sae.get("l0"), names),
            norm,
            sae.get("neuronpedia"),
        ]


def _site(names: str) -> str:
    return next((site for pattern, site in SITES if re.search(pattern, names)), "resid_post")


def _layer(names: str) -> int:
    if "embedding" in names or "e-res-sm" in names:
        return 0
    found = next(filter(None, (re.search(pattern, names) for pattern in LAYERS)))
    return int(found[1])


def _width(names: str) -> int | None:
    if found := re.search(r"width_(\d+)([km])|-(\d+)k$", names):  # 65k is 2^16, 1m is 2^20
        return 1 << round(log2(int(found[1] or found[3]) * THOUSANDS[found[2] or "k"]))
    if found := re.search(r"2pow(\d+)", names):
        return 1 << int(found[1])
    if found := re.search(r"-[Ww]-?(\d+)[Kk]-|v5_(\d+)k_", names):
        return int(next(filter(None, found.groups()))) << 10
    if found := re.search(r"Llama3_1-8B-Base-L\d+[RMA]-(\d+)x", names):
        return 4096 * int(found[1])
    found = re.search(r"(?:_ds|hook_resid_post_|hook_resid_pre_|hook_mlp_out_)(\d{3,6})", names)
    return int(found[1]) if found else None


def _l0(stated: float | None, names: str) -> float | None:
    found = re.search(r"(?:average_l0_|-L0_|-l0-)(\d+)", names)
    return stated or (int(found[1]) if found else None)


if __name__ == "__main__":
    main()
