"""Gemma Scope 2 (Gemma 3): params.safetensors, often with config.json."""

import re
from pathlib import Path
from typing import Any

from fpo_convert.formats.hook_names import hook_from
from fpo_convert.formats.json_file import hook_at, read_json
from fpo_convert.formats.keys import refuse_unknown, refuse_values
from fpo_convert.row_readers import FileTensor, Tensor
from fpo_convert.source_formula import Format, Options, Source, matrix_shape
from fpo_core.errors import SaeError
from fpo_core.io.reader import open_safetensors
from fpo_core.sae.hook import Hook

FILES = WEIGHTS, CONFIG = "params.safetensors", "config.json"
_UNDERSTOOD = {
    "affine_connection",
    "architecture",
    "hf_hook_point_in",
    "hf_hook_point_out",
    "model_name",
    "type",
    "width",
}
_ALLOWED = {
    "architecture": ("jump_relu",),
    "affine_connection": (True, False, None),
}
_NAMES = {"w_enc": "W_enc", "w_dec": "W_dec"}
_SITES = {
    "transcoder": "mlp_in",
    "resid_post": "resid_post",
    "attn_out": "z",
    "mlp_out": "mlp_out",
}


def detect(path: Path) -> bool:
    """Whether `path` is such a file or holds one."""
    return path.name == WEIGHTS or (path / WEIGHTS).is_file()


def read(path: Path, options: Options) -> Source:
    """jumprelu without b_dec subtraction; transcoders keep their encoder alone."""
    weights = path if path.suffix == ".safetensors" else path / WEIGHTS
    config = weights.parent / CONFIG
    cfg = read_json(config) if config.is_file() else {}
    # A cross-layer transcoder has the same files as a transcoder of one layer.
    if re.search(r"(^|[/_])clt", options.location) or str(cfg.get("type", "")) == "clt":
        raise SaeError(
            f"{weights} is a cross-layer transcoder, which reads many layers, expected one hook: "
            "use a resid_post, mlp_out or attn_out autoencoder"
        )
    refuse_values(config, cfg, _ALLOWED)
    refuse_unknown(config, cfg, _UNDERSTOOD, ignored=("l0",), defaulted=("hf_hook_point_in",))
    file = open_safetensors(weights)
    tensors: dict[str, Tensor] = {_NAMES.get(n, n): FileTensor(file, n) for n in file.entries}
    d_in, d_sae = matrix_shape(weights, tensors, "W_enc")
    _check_width(config, cfg, d_sae)
    transcoder = "transcoder" in options.location or _writes_elsewhere(cfg)
    return Source(
        files=(weights, *([config] if cfg else [])),
        architecture="jumprelu",
        tensors=tensors,
        d_in=d_in,
        d_sae=d_sae,
        has_decoder=not transcoder,
        hook=_hook(config, cfg, options),
        model_name=_model(cfg, options.location),
        untrained_tokens=("bos", "pad"),
    )


def _hook(config: Path, cfg: dict[str, Any], options: Options) -> Hook | None:
    if options.hook or cfg.get("hf_hook_point_in") is None:
        return hook_from(options.location, r"layer_(\d+)", _SITES)
    return hook_at(config, cfg, "hf_hook_point_in")


def _writes_elsewhere(cfg: dict[str, Any]) -> bool:
    return cfg.get("hf_hook_point_out") not in (None, "", cfg.get("hf_hook_point_in"))


def _check_width(config: Path, cfg: dict[str, Any], d_sae: int) -> None:
    if isinstance(cfg.get("width"), int) and cfg["width"] != d_sae:
        raise SaeError(
            f"{config} has width {cfg['width']} and w_enc {d_sae} features, expected the same: "
            "use a complete checkpoint"
        )


def _model(cfg: dict[str, Any], location: str) -> str:
    name = str(cfg.get("model_name") or "")
    if not name:
        match = re.search(r"gemma-scope-2-(\d+[mb])-(pt|it)", location)
        name = f"gemma-3-{match[1]}-{match[2]}" if match else ""
    name = name.replace("-v3", "-3")
    # The hub calls the pre-trained 270m model by its bare name.
    name = name.replace("-pt", "") if "270m" in name else name
    return name if "/" in name or not name else f"google/{name}"


FORMAT = Format("gemma-scope-2", detect, read, FILES, loaders=("gemma_3",))
