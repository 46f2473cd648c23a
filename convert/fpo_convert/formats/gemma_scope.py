"""Gemma Scope (Gemma 2): params.npz, with layer, width and site in the path alone."""

import re
from pathlib import Path

from fpo_convert.formats.hook_names import chosen_hook, hook_from
from fpo_convert.numpy_file import load_npz
from fpo_convert.source_formula import Options, Source
from fpo_core.errors import SaeError

WEIGHTS = "params.npz"
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
    if "W_enc" not in tensors or len(tensors["W_enc"].shape) != 2:
        raise SaeError(f"{file} lacks the matrix W_enc: give a Gemma Scope params.npz")
    d_in, d_sae = tensors["W_enc"].shape
    where = options.location
    model = re.search(r"gemma-scope-(\d+b)-(pt|it)", where)
    suffix = "" if not model or model[2] == "pt" else "-it"
    transcoder = "transcoder" in where
    hook = None if transcoder else hook_from(where, r"layer_(\d+)", _SITES)
    if transcoder:
        tensors = {k: v for k, v in tensors.items() if k not in ("W_dec", "b_dec", "W_skip")}
    return Source(
        format="gemma-scope",
        files=(file,),
        architecture="jumprelu",
        tensors=tensors,
        d_in=d_in,
        d_sae=d_sae,
        has_decoder=not transcoder,
        hook=chosen_hook(options.hook, None if "embedding" in where else hook),
        model_name=options.model_name or (f"google/gemma-2-{model[1]}{suffix}" if model else ""),
        untrained_tokens=("bos", "pad"),
        neuronpedia_id=options.neuronpedia_id,
        notes=("transcoder_decoder_dropped",) if transcoder else (),
    )
