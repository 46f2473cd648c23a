"""sparsify: sae.safetensors and cfg.json, in a folder named after the module that it reads."""

import re
from pathlib import Path

from fpo_convert.formats.json_file import read_json, whole
from fpo_convert.row_readers import FileTensor, Tensor, transposed
from fpo_convert.source_formula import Format, Options, Source, matrix_shape
from fpo_core.errors import SaeError
from fpo_core.io.reader import open_safetensors
from fpo_core.sae.hook import Hook

FILES = WEIGHTS, CONFIG = "sae.safetensors", "cfg.json"
_NAMES = {"encoder.weight": "W_enc", "encoder.bias": "b_enc"}
_SITES = {"": "resid_post", "mlp": "mlp_out", "attention": "attn_out", "self_attn": "attn_out"}
_SITES |= {"attn": "attn_out"}


def detect(path: Path) -> bool:
    """Whether `path` is such a folder."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).exists()


def read(path: Path, options: Options) -> Source:
    """topk; b_dec is subtracted unless the checkpoint transcodes, and W_dec is not transposed."""
    config = path / CONFIG
    cfg = read_json(config)
    activation = cfg.get("activation", "topk")
    if activation != "topk":
        raise SaeError(
            f"{config} has activation {activation!r}, expected topk: use such a checkpoint"
        )
    file = open_safetensors(path / WEIGHTS)
    tensors: dict[str, Tensor] = {_NAMES.get(n, n): FileTensor(file, n) for n in file.entries}
    matrix_shape(path / WEIGHTS, tensors, "W_enc")
    tensors["W_enc"] = transposed(tensors["W_enc"])
    transcode = cfg.get("transcode", False) is True
    return Source(
        files=(path / WEIGHTS, config),
        architecture="topk",
        tensors=tensors,
        d_in=whole(config, cfg, "d_in"),
        d_sae=cfg.get("num_latents") or tensors["W_enc"].shape[1],
        k=options.k or whole(config, cfg, "k"),
        subtract_b_dec=not transcode,
        has_decoder=not transcode,
        hook=_hook(options.location, transcode),
    )


def _hook(location: str, transcode: bool) -> Hook | None:
    match = re.search(r"(?:^|[/.:])(?:layers|h)\.(\d+)(?:\.([a-z_]+))?/*$", location)
    site = _SITES.get(match[2] or "") if match else None
    if not match or site is None:
        return None
    # A transcoder of an MLP is named after the MLP, whose input it reads.
    return Hook(int(match[1]), "mlp_in" if transcode and site == "mlp_out" else site)


FORMAT = Format("sparsify", detect, read, FILES, loaders=("sparsify",))
