"""circuit-tracer's transcoders: layer_N.safetensors, or W_enc_N.safetensors of a cross-layer one.

What features of the latter write to later layers is left out: their encoder reads one place.
"""

import re
from pathlib import Path
from typing import Any

from fpo_convert.formats.json_file import hook_at
from fpo_convert.formats.keys import refuse_unknown, refuse_values
from fpo_convert.row_readers import FileTensor, Tensor, transposed
from fpo_convert.source_formula import Format, Options, Source, matrix_shape
from fpo_core.errors import SaeError
from fpo_core.io.reader import open_safetensors
from fpo_core.sae.hook import Hook

CONFIG = "config.yaml"
_FILE = re.compile(r"(layer|W_enc)_(\d+)\.safetensors")
_THRESHOLDS = ("threshold", "activation_function.threshold")
_UNDERSTOOD = {"activation", "feature_input_hook", "model_kind", "model_name"}
_IGNORED = {"feature_output_hook", "scan", "transcoders", "repo_id", "revision", "subfolder"}
_ALLOWED = {
    "activation": ("relu", "jumprelu", None),
    "model_kind": ("transcoder_set", "cross_layer_transcoder"),
}


def detect(path: Path) -> bool:
    """Whether `path` is such a file."""
    return _FILE.fullmatch(path.name) is not None


def read(path: Path, options: Options) -> Source:
    """relu, or jumprelu where the file holds thresholds, of x W + b; the encoder alone."""
    match = _FILE.fullmatch(path.name)
    if match is None:
        raise SaeError(
            f"{path} is named neither layer_N.safetensors nor W_enc_N.safetensors, expected one of "
            "them, whose N is the layer: give that file"
        )
    layer = int(match[2])
    config = path.parent / CONFIG
    cfg = _read_yaml(config) if config.is_file() else {}
    refuse_values(config, cfg, _ALLOWED)
    refuse_unknown(config, cfg, _UNDERSTOOD, ignored=_IGNORED, defaulted=("feature_input_hook",))
    file = open_safetensors(path)
    plain = {name.removesuffix(f"_{layer}"): FileTensor(file, name) for name in file.entries}
    tensors: dict[str, Tensor] = {
        "threshold" if name in _THRESHOLDS else name: tensor for name, tensor in plain.items()
    }
    matrix_shape(path, tensors, "W_enc")
    tensors["W_enc"] = transposed(tensors["W_enc"])
    _check_activation(config, cfg, tensors)
    d_in, d_sae = tensors["W_enc"].shape
    return Source(
        files=(path, config) if cfg else (path,),
        architecture="jumprelu" if "threshold" in tensors else "relu",
        tensors=tensors,
        d_in=d_in,
        d_sae=d_sae,
        has_decoder=False,
        hook=_hook(config, layer, cfg, cross_layer=match[1] == "W_enc"),
        model_name=str(cfg.get("model_name") or _model(options.location)),
    )


def _check_activation(config: Path, cfg: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    stated = cfg.get("activation")
    if stated is not None and (stated == "jumprelu") != ("threshold" in tensors):
        has = "has" if "threshold" in tensors else "lacks"
        raise SaeError(
            f"{config} has activation {stated!r}, and the file {has} thresholds, expected the two "
            "to agree: use another checkpoint"
        )


def _hook(config: Path, layer: int, cfg: dict[str, Any], *, cross_layer: bool) -> Hook:
    """Cross-layer transcoders read the residual before the MLP's norm by default, others after."""
    stated = hook_at(config, cfg, "feature_input_hook", f"blocks.{layer}.")
    return stated or Hook(layer, "resid_mid" if cross_layer else "mlp_in")


def _model(location: str) -> str:
    match = re.search(r"qwen3-([\d.]+b)", location)
    return f"Qwen/Qwen3-{match[1].upper()}" if match else ""


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise SaeError(f"{path} is not YAML ({type(error).__name__}): download it again") from None
    if not isinstance(value, dict):
        raise SaeError(f"{path} is not a YAML mapping: download it again")
    return {str(key): item for key, item in value.items()}


FORMAT = Format(
    "circuit-tracer",
    detect,
    read,
    files=(CONFIG,),
    loaders=("mwhanna_transcoder", "mntss_clt_layer_transcoder"),
)
