"""Qwen Scope: layerN.sae.pt, topk, with model, width and k in the repository's name."""

import re
from pathlib import Path

from fpo_convert.formats.hook_names import chosen_hook
from fpo_convert.row_readers import transposed
from fpo_convert.source_formula import Options, Source
from fpo_convert.torch_file import load_pt, tensors_of
from fpo_core.errors import SaeError
from fpo_core.sae.hook import Hook

_REPOSITORY = re.compile(r"SAE-Res-(.+?)-W(\d+)K-L0_(\d+)")


def detect(path: Path) -> bool:
    """Whether `path` is such a file."""
    return path.name.endswith(".sae.pt")


def read(path: Path, options: Options) -> Source:
    """Top k of x W + b, b_dec never subtracted, both matrices stored the other way round."""
    named = _REPOSITORY.search(options.location)
    k = options.k or (int(named[3]) if named else None)
    if k is None:
        raise SaeError(
            f"{path}: k stands in the repository's name alone (SAE-Res-MODEL-W32K-L0_K), and this "
            "path has none: give it with --k"
        )
    tensors = tensors_of(load_pt(path))
    for name in ("W_enc", "W_dec"):
        if name not in tensors or len(tensors[name].shape) != 2:
            raise SaeError(f"{path} lacks the matrix {name}: give a Qwen Scope layerN.sae.pt")
        tensors[name] = transposed(tensors[name])
    d_in, d_sae = tensors["W_enc"].shape
    layer = re.search(r"layer(\d+)\.sae\.pt$", path.name)
    hook = Hook(int(layer[1]), "resid_post") if layer else None
    return Source(
        format="qwen-scope",
        files=(path,),
        architecture="topk",
        tensors=tensors,
        d_in=d_in,
        d_sae=d_sae,
        k=k,
        hook=chosen_hook(options.hook, hook),
        model_name=options.model_name or (f"Qwen/{named[1]}" if named else ""),
        neuronpedia_id=options.neuronpedia_id,
    )
