"""Two torch linear layers in one file, without a configuration: Goodfire's and qresearch's."""

import re
from pathlib import Path
from typing import Any

from fpo_convert.row_readers import Tensor, transposed
from fpo_convert.source_formula import Format, Options, Source, matrix_shape
from fpo_convert.torch_file import load_pt, tensors_of
from fpo_core.errors import SaeError
from fpo_core.sae.hook import Hook

_NAMES = {"weight": "W", "bias": "b"}
_LAYERS = re.compile(r"(encoder|decoder)(?:_linear)?\.(weight|bias)")
_FILE = re.compile(r"(.+)-SAE-l(\d+)\.pth?$")
_OWNERS = {"Llama-3": "meta-llama", "DeepSeek-R1": "deepseek-ai"}


def detect(path: Path) -> bool:
    """Whether `path` is such a file, which is called MODEL-SAE-lLAYER."""
    return _FILE.search(path.name) is not None


def read(path: Path, options: Options) -> Source:
    """relu of x W + b, b_dec never subtracted; model and layer stand in the file's name."""
    content = load_pt(path)
    tensors = {_name(path, key): _turned(t) for key, t in tensors_of(content).items()}
    d_in, d_sae = matrix_shape(path, tensors, "W_enc")
    match = _FILE.search(path.name)
    return Source(
        files=(path,),
        architecture="relu",
        tensors=tensors,
        d_in=d_in,
        d_sae=d_sae,
        hook=Hook(int(match[2]), "resid_post") if match else None,
        model_name=_model(match[1]) if match else "",
    )


def _name(path: Path, key: str) -> str:
    match = _LAYERS.fullmatch(key)
    if match is None:
        raise SaeError(
            f"{path} holds {key!r}, expected weights and biases of an encoder and a decoder alone: "
            "use another checkpoint"
        )
    return f"{_NAMES[match[2]]}_{match[1][:3]}"


def _turned(tensor: Tensor) -> Tensor:
    return transposed(tensor) if len(tensor.shape) == 2 else tensor


def _model(name: str) -> str:
    owner: Any = next((owner for start, owner in _OWNERS.items() if name.startswith(start)), None)
    return f"{owner}/{name}" if owner else name


FORMAT = Format("linear-layers", detect, read, files=(), loaders=("goodfire", "deepseek_r1"))
