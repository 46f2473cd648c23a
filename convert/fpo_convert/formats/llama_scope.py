"""Llama Scope: hyperparams.json and checkpoints/final.safetensors."""

import math
from pathlib import Path

import numpy as np

from fpo_convert.formats.json_file import mapping, positive, read_json, whole
from fpo_convert.row_readers import ArrayTensor, FileTensor, Tensor, transposed
from fpo_convert.source_formula import Format, Options, Source
from fpo_core.errors import SaeError
from fpo_core.io.reader import open_safetensors
from fpo_core.sae.hook import Hook

FILES = CONFIG, WEIGHTS = "hyperparams.json", "checkpoints/final.safetensors"
_NAMES = {
    "encoder.weight": "W_enc",
    "encoder.bias": "b_enc",
    "decoder.weight": "W_dec",
    "decoder.bias": "b_dec",
}


def detect(path: Path) -> bool:
    """Whether `path` is such a folder."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).exists()


def read(path: Path, options: Options) -> Source:
    """jumprelu on inputs scaled by s = √d_in / mean‖x‖, with one threshold θ·s for all features."""
    config = path / CONFIG
    cfg = read_json(config)
    if cfg.get("act_fn", "jumprelu") != "jumprelu":
        raise SaeError(
            f"{config} has act_fn {cfg['act_fn']!r}, expected jumprelu: use such a checkpoint"
        )
    if cfg.get("norm_activation", "dataset-wise") != "dataset-wise":
        raise SaeError(
            f"{config} has norm_activation {cfg['norm_activation']!r}, expected dataset-wise: use "
            "such a checkpoint"
        )
    d_in, d_sae = whole(config, cfg, "d_model"), whole(config, cfg, "d_sae")
    norms = mapping(cfg.get("dataset_average_activation_norm"))
    scale = options.norm_factor or math.sqrt(d_in) / positive(config, norms, "in")
    file = open_safetensors(path / WEIGHTS)
    tensors = {_NAMES.get(n, n): _tensor(FileTensor(file, n)) for n in file.entries}
    # The threshold is stated for unscaled inputs, while the weights are for scaled ones.
    theta = positive(config, cfg, "jump_relu_threshold")
    tensors["threshold"] = ArrayTensor(np.array(theta * scale))
    point = cfg.get("hook_point_in")
    return Source(
        files=(path / WEIGHTS, config),
        architecture="jumprelu",
        tensors=tensors,
        d_in=d_in,
        d_sae=d_sae,
        scale=scale,
        subtract_b_dec=cfg.get("apply_decoder_bias_to_pre_encoder", False) is True,
        hook=Hook.parse(point) if isinstance(point, str) else None,
        model_name="meta-llama/Llama-3.1-8B",
    )


def _tensor(stored: FileTensor) -> Tensor:
    return transposed(stored) if len(stored.shape) == 2 else stored


FORMAT = Format("llama-scope", detect, read, FILES, loaders=("llama_scope",))
