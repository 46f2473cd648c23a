"""Qwen Scope: layerN.sae.pt, topk, with model, width and k in the repository's name."""

import re
from pathlib import Path

from fpo_convert.row_readers import transposed
from fpo_convert.source_formula import Format, Options, Source, matrix_shape
from fpo_convert.torch_file import load_pt, tensors_of
from fpo_core.errors import SaeError
from fpo_core.sae.hook import Hook

_REPOSITORY = re.compile(r"SAE-Res-(.+?)-W(\d+)K-L0_(\d+)")


def detect(path: Path) -> bool:
    """Whether `path` is such a file."""
    return path.name.endswith(".sae.pt")


def read(path: Path, options: Options) -> Source:
    """Top k of x W + b, b_dec never subtracted, both matrices stored transposed."""
    repository = _REPOSITORY.search(options.location)
    k = options.k or (int(repository[3]) if repository else None)
    if k is None:
        raise SaeError(
            f"{path}: k is in the repository's name alone (SAE-Res-MODEL-W32K-L0_K), and this path "
            "has none: give k"
        )
    tensors = tensors_of(load_pt(path))
    for name in ("W_enc", "W_dec"):
        matrix_shape(path, tensors, name)
        tensors[name] = transposed(tensors[name])
    d_in, d_sae = tensors["W_enc"].shape
    layer = re.search(r"layer(\d+)\.sae\.pt$", path.name)
    return Source(
        files=(path,),
        architecture="topk",
        tensors=tensors,
        d_in=d_in,
        d_sae=d_sae,
        k=k,
        hook=Hook(int(layer[1]), "resid_post") if layer else None,
        model_name=f"Qwen/{repository[1]}" if repository else "",
    )


FORMAT = Format("qwen-scope", detect, read, loaders=("qwen_scope",))
