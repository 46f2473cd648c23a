"""OpenMOSS's lm-saes: Llama Scope (hyperparams.json) and Llama-Scope-R1-Distill (config.json)."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fpo_convert.formats.json_file import flag, hook_at, mapping, positive, read_json, whole
from fpo_convert.formats.keys import refuse_unknown, refuse_values
from fpo_convert.row_readers import (
    ArrayTensor,
    FileTensor,
    Tensor,
    WholeTensor,
    chunks,
    transposed,
)
from fpo_convert.source_formula import Format, Options, Source, matrix_shape
from fpo_core.errors import SaeError
from fpo_core.io.reader import open_safetensors

# Each generation's configuration, and its weights below the same folder.
_GENERATIONS = {
    "hyperparams.json": "checkpoints/final.safetensors",
    "config.json": "sae_weights.safetensors",
}
_NAMES = {
    "encoder.weight": "W_enc",
    "encoder.bias": "b_enc",
    "decoder.weight": "W_dec",
    "decoder.bias": "b_dec",
}
_LOG_THRESHOLD, _NORM = "log_jumprelu_threshold", "dataset_average_activation_norm"
_ALLOWED = {
    "sae_type": ("sae",),
    "act_fn": ("jumprelu",),
    "norm_activation": ("dataset-wise",),
    "use_decoder_bias": (True,),
    "use_glu_encoder": (False,),
}
_UNDERSTOOD = {
    *_ALLOWED,
    _NORM,
    "apply_decoder_bias_to_pre_encoder",
    "d_model",
    "d_sae",
    "expansion_factor",
    "hook_point_in",
    "jump_relu_threshold",
    "sparsity_include_decoder_norm",
}
_DEFAULTED = ("act_fn", "hook_point_in", "norm_activation", "sparsity_include_decoder_norm")
# Settings of training and loading, and of activations that these files don't have.
_IGNORED = {
    "bias_init_method",
    "ddp_size",
    "decoder_exactly_fixed_norm",
    "device",
    "dtype",
    "force_unit_decoder_norm",
    "hook_point_out",
    "init_decoder_norm",
    "init_encoder_norm",
    "init_encoder_with_decoder_transpose",
    "jumprelu_threshold_window",
    "k_warmup_steps",
    "l1_coefficient",
    "l1_coefficient_warmup_steps",
    "lp",
    "sae_pretrained_name_or_path",
    "sparsity_threshold_for_triton_spmm_kernel",
    "strict_loading",
    "top_k",
    "tp_size",
    "use_batch_norm_mse",
    "use_ghost_grads",
    "use_triton_kernel",
}


def detect(path: Path) -> bool:
    """Whether `path` is a folder of either generation; SAELens's own have cfg.json."""
    return _config(path) is not None and not (path / "cfg.json").exists()


def _config(path: Path) -> str | None:
    return next(
        (c for c, w in _GENERATIONS.items() if (path / c).is_file() and (path / w).exists()), None
    )


def read(path: Path, options: Options) -> Source:
    """jumprelu of (s x − [b_dec]) W + b with s = √d_in / mean‖x‖.

    A feature fires where its pre-activation, times the norm of its decoder row where the
    configuration says so, exceeds the threshold; thresholds are one number times s in the first
    generation and logarithms in the second.
    """
    name = _config(path) or next(iter(_GENERATIONS))
    config = path / name
    cfg = read_json(config)
    refuse_values(config, cfg, _ALLOWED)
    refuse_unknown(config, cfg, _UNDERSTOOD, ignored=_IGNORED, defaulted=_DEFAULTED)
    file = open_safetensors(path / _GENERATIONS[name])
    stored: dict[str, Tensor] = {n: FileTensor(file, n) for n in file.entries}
    d_in, d_sae = _sizes(config, cfg)
    scale = options.norm_factor or math.sqrt(d_in) / _mean_norm(config, cfg, stored)
    tensors = {_NAMES.get(n, n): _turned(t) for n, t in stored.items() if not n.startswith(_NORM)}
    by_norm = flag(config, cfg, "sparsity_include_decoder_norm", default=False)
    if (log := tensors.pop(_LOG_THRESHOLD, None)) is None:
        theta = np.full(d_sae, positive(config, cfg, "jump_relu_threshold") * scale)
        plain: Tensor = ArrayTensor(theta)
    else:
        plain = WholeTensor(log.shape, lambda: np.exp(log.rows().astype(np.float64)))
    if by_norm:
        matrix_shape(path / _GENERATIONS[name], stored, "decoder.weight")
    tensors["threshold"] = _by_decoder_norm(plain, stored) if by_norm else plain
    return Source(
        files=(path / _GENERATIONS[name], config),
        architecture="jumprelu",
        tensors=tensors,
        d_in=d_in,
        d_sae=d_sae,
        scale=scale,
        subtract_b_dec=flag(config, cfg, "apply_decoder_bias_to_pre_encoder", default=False),
        hook=hook_at(config, cfg, "hook_point_in"),
        model_name=_model(options.location),
    )


def _sizes(config: Path, cfg: Mapping[str, Any]) -> tuple[int, int]:
    d_in = whole(config, cfg, "d_model")
    if cfg.get("d_sae") is None:
        return d_in, d_in * whole(config, cfg, "expansion_factor")
    return d_in, whole(config, cfg, "d_sae")


def _mean_norm(config: Path, cfg: Mapping[str, Any], stored: Mapping[str, Tensor]) -> float:
    """mean‖x‖ of the training data, from the configuration or, lately, from among the weights."""
    among = stored.get(f"{_NORM}.{cfg.get('hook_point_in')}")
    if among is not None:
        numbers = among.rows().reshape(-1).tolist()
        stated = {_NORM: numbers[0] if numbers else None}
        return positive(config.parent / _GENERATIONS[config.name], stated, _NORM)
    norms = mapping(config, cfg, _NORM)
    if "in" not in norms:
        raise SaeError(
            f"{config} lacks {_NORM}, the mean norm of the inputs that it was trained on: give "
            "√d_in over it as the norm factor, or convert it by its release's name"
        )
    return positive(config, norms, "in")


def _by_decoder_norm(threshold: Tensor, stored: Mapping[str, Tensor]) -> Tensor:
    """θ / ‖d‖ instead of θ: firing is decided by pre-activation times decoder norm."""

    def load() -> np.ndarray:
        squares = sum((rows.astype(np.float64) ** 2).sum(0) for _, rows in chunks(decoder))
        return threshold.rows().reshape(-1) / np.sqrt(squares)

    decoder = stored["decoder.weight"]  # (d_in, d_sae): a feature's row is a column here
    return WholeTensor(threshold.shape, load)


def _turned(stored: Tensor) -> Tensor:
    return transposed(stored) if len(stored.shape) == 2 else stored


def _model(location: str) -> str:
    distilled = "R1-Distill" in location
    return "deepseek-ai/DeepSeek-R1-Distill-Llama-8B" if distilled else "meta-llama/Llama-3.1-8B"


FORMAT = Format(
    "llama-scope",
    detect,
    read,
    files=(*_GENERATIONS, *_GENERATIONS.values()),
    loaders=("llama_scope", "llama_scope_r1_distill"),
)
