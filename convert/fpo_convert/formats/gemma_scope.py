"""Gemma Scope (Gemma 2): params.npz, with layer, width and site in the path alone."""

import re
from pathlib import Path

from fpo_convert.formats.hook_names import hook_from
from fpo_convert.numpy_file import load_npz
from fpo_convert.source_formula import Format, Options, Source, matrix_shape
from fpo_core.sae.hook import Hook

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
    embedding = "embedding" in where
    return Source(
        files=(file,),
        architecture="jumprelu",
        tensors=tensors,
        d_in=d_in,
        d_sae=d_sae,
        # Gemma multiplies its embeddings by √d_in, and these were trained on them as they are.
        scale=d_in**-0.5 if embedding else 1.0,
        has_decoder=not transcoder,
        hook=_hook(where, transcoder=transcoder, embedding=embedding),
        model_name=f"google/gemma-2-{model[1]}{suffix}" if model else "",
        untrained_tokens=("bos", "pad"),
    )


def _hook(location: str, *, transcoder: bool, embedding: bool) -> Hook | None:
    """Transcoders read a place that no hook names: after the norm, before its weights."""
    if embedding:
        return Hook(0, "resid_pre")
    return None if transcoder else hook_from(location, r"layer_(\d+)", _SITES)


FORMAT = Format("gemma-scope", detect, read, FILES, loaders=("gemma_2", "gemma_2_transcoder"))
