"""sparsify: sae.safetensors and cfg.json, in a folder named after the module that it reads."""

import re
from pathlib import Path
from typing import Any

from fpo_convert.formats.json_file import flag, read_json, whole
from fpo_convert.formats.keys import refuse_unknown, refuse_values
from fpo_convert.row_readers import FileTensor, Tensor, transposed
from fpo_convert.source_formula import Format, Options, Source, matrix_shape
from fpo_core.io.reader import open_safetensors
from fpo_core.sae.hook import Hook

FILES = WEIGHTS, CONFIG = "sae.safetensors", "cfg.json"
_NAMES = {"encoder.weight": "W_enc", "encoder.bias": "b_enc"}
_SITES = {"": "resid_post", "mlp": "mlp_out", "attention": "attn_out", "self_attn": "attn_out"}
_SITES |= {"attn": "attn_out"}
_FLAGS = ("signed", "transcode", "skip_connection", "embed_skip")
_UNDERSTOOD = {*_FLAGS, "activation", "d_in", "expansion_factor", "k", "num_latents"}
_IGNORED = {"gram_table_hash", "init_method", "lookup_max_order", "multi_topk", "normalize_decoder"}
# What other encoders of the library's branches set: such a checkpoint is no topk of x W + b.
_OFF = (
    *("encoder_halut", "encoder_kron", "encoder_monarch", "encoder_mpnet", "encoder_pkm"),
    *("gram_lookup", "matching_pursuit", "mp_encoder", "normalize_encoder", "normalize_io"),
    "tied_decoder",
)
_ALLOWED = {"activation": ("topk",)} | dict.fromkeys(_OFF, (False, None))


def detect(path: Path) -> bool:
    """Whether `path` is such a folder."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).exists()


def read(path: Path, options: Options) -> Source:
    """topk, by magnitude where features are signed.

    b_dec is subtracted unless the checkpoint transcodes; W_dec is not transposed. What is added to
    the output beside the features is no decoder, and is left out with it.
    """
    config = path / CONFIG
    cfg = read_json(config)
    refuse_values(config, cfg, _ALLOWED)
    refuse_unknown(config, cfg, _UNDERSTOOD, ignored={*_IGNORED, *_OFF}, defaulted=_FLAGS[:2])
    signed, transcode, *skips = (flag(config, cfg, name, default=False) for name in _FLAGS)
    file = open_safetensors(path / WEIGHTS)
    tensors: dict[str, Tensor] = {_NAMES.get(n, n): FileTensor(file, n) for n in file.entries}
    matrix_shape(path / WEIGHTS, tensors, "W_enc")
    tensors["W_enc"] = transposed(tensors["W_enc"])
    return Source(
        files=(path / WEIGHTS, config),
        architecture="abstopk" if signed else "topk",
        tensors=tensors,
        d_in=whole(config, cfg, "d_in"),
        d_sae=_width(config, cfg),
        k=options.k or whole(config, cfg, "k"),
        subtract_b_dec=not transcode,
        has_decoder=not (transcode or any(skips)),
        hook=_hook(options.location, transcode),
    )


def _width(config: Path, cfg: dict[str, Any]) -> int:
    if cfg.get("num_latents"):
        return whole(config, cfg, "num_latents")
    return whole(config, cfg, "d_in") * whole(config, cfg, "expansion_factor")


def _hook(location: str, transcode: bool) -> Hook | None:
    match = re.search(r"(?:^|[/.:])(?:layers|h)\.(\d+)(?:\.([a-z_]+))?/*$", location)
    site = _SITES.get(match[2] or "") if match else None
    if not match or site is None:
        return None
    # A transcoder of an MLP is named after the MLP, whose input it reads.
    return Hook(int(match[1]), "mlp_in" if transcode and site == "mlp_out" else site)


FORMAT = Format("sparsify", detect, read, FILES, loaders=("sparsify",))
