"""Gemma Scope (Gemma 2): params.npz, with layer, width and site in the path alone."""

import re
from pathlib import Path

from fpo_convert.formats.hook_names import hook_from
from fpo_convert.numpy_file import load_npz
from fpo_convert.source_formula import Format, Options, Source, matrix_shape

WEIGHTS = "params.npz"
FILES = (WEIGHTS,)
_SITES = {"-res": "resid_post", "-mlp": "mlp_out", "-att": "z"}


def detect(path: Path) -> bool:
    """Whether `path` is such a file or holds one."""
    return path.name == WEIGHTS or (path / WEIGHTS).is_file()


def read(path: Path, options: Options) -> Source:
    """jumprelu without b_dec subtraction; BOS was never seen in training."""
    file = path if path.suffix == ".npz" else path / WEIGHTS
    tensors = {
        "W_" + name[2:] if name.startswith("w_") else name: tensor
        for name, tensor in load_npz(file).items()
    }
    d_in, d_sae = matrix_shape(file, tensors, "W_enc")
    where = options.location
    model = re.search(r"gemma-scope-(\d+b)-(pt|it)", where)
    suffix = "" if not model or model[2] == "pt" else "-it"
    transcoder = "transcoder" in where
    # Neither transcoders nor autoencoders of the embeddings read a place that a hook names.
    hooked = not transcoder and "embedding" not in where
    return Source(
        files=(file,),
        architecture="jumprelu",
        tensors=tensors,
        d_in=d_in,
        d_sae=d_sae,
        has_decoder=not transcoder,
        hook=hook_from(where, r"layer_(\d+)", _SITES) if hooked else None,
        model_name=f"google/gemma-2-{model[1]}{suffix}" if model else "",
        untrained_tokens=("bos", "pad"),
    )


FORMAT = Format("gemma-scope", detect, read, FILES, loaders=("gemma_2", "gemma_2_transcoder"))
