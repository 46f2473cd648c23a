"""Bussmann's BatchTopK library: sae.pt and config.json in one folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fpo_convert.formats.json_file import flag, hook_at, read_json, whole
from fpo_convert.formats.keys import refuse_unknown, refuse_values
from fpo_convert.row_readers import ArrayTensor, Tensor
from fpo_convert.source_formula import Format, Options, Source
from fpo_convert.torch_file import load_pt, tensors_of
from fpo_core.errors import SaeError

WEIGHTS, CONFIG = "sae.pt", "config.json"
_UNDERSTOOD = {
    "act_size",
    "activation",
    "dict_size",
    "hook_point",
    "input_unit_norm",
    "model_name",
    "sae_type",
    "tied_weights",
    "top_k",
    "use_encoder_bias",
}
_DEFAULTED = ("hook_point", "input_unit_norm")
_IGNORED = {
    "aux_penalty",
    "bandwidth",
    "batch_size",
    "beta1",
    "beta2",
    "checkpoint_freq",
    "dataset_path",
    "device",
    "dtype",
    "l1_coeff",
    "l1_warmup_frac",
    "layer",
    "lr",
    "max_grad_norm",
    "min_lr",
    "model_batch_size",
    "model_dtype",
    "n_batches_to_dead",
    "name",
    "num_batches_in_buffer",
    "num_tokens",
    "perf_log_freq",
    "seed",
    "seq_len",
    "site",
    "softmax_aux_penalty",
    "top_k_aux",
    "wandb_project",
}
_ALLOWED = {
    "activation": ("relu",),
    "sae_type": ("vanilla", "topk", "batchtopk", "jumprelu"),
    "tied_weights": (False,),
}


def detect(path: Path) -> bool:
    """Whether `path` is such a file or holds one."""
    folder = path.parent if path.name == WEIGHTS else path
    return (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file()


def read(path: Path, options: Options) -> Source:
    """relu, topk or jumprelu of (T(x) − b_dec) W + b, T being layer norm for `input_unit_norm`.

    batchtopk chooses within a batch, in evaluation too, and is refused unless a threshold was
    estimated for it. jumprelu's thresholds are logarithms there.
    """
    folder = path.parent if path.name == WEIGHTS else path
    config = folder / CONFIG
    cfg = read_json(config)
    refuse_values(config, cfg, _ALLOWED)
    refuse_unknown(config, cfg, _UNDERSTOOD, ignored=_IGNORED, defaulted=_DEFAULTED)
    kind = str(cfg.get("sae_type"))
    tensors = tensors_of(load_pt(folder / WEIGHTS))
    log = "jumprelu.log_threshold" in tensors
    if log:
        tensors["threshold"] = tensors.pop("jumprelu.log_threshold")
    if kind == "batchtopk" and "threshold" not in tensors:
        raise SaeError(
            f"{folder / WEIGHTS} is of type batchtopk without a threshold, so a token's features "
            "depend on its batch: use a checkpoint with a threshold, or a topk one"
        )
    architecture = {"vanilla": "relu", "topk": "topk"}.get(kind, "jumprelu")
    return Source(
        files=(folder / WEIGHTS, config),
        architecture=architecture,
        tensors=_without_bias(config, cfg, tensors, kind),
        d_in=whole(config, cfg, "act_size"),
        d_sae=whole(config, cfg, "dict_size"),
        k=options.k or whole(config, cfg, "top_k") if architecture == "topk" else None,
        transform=_transform(config, cfg),
        subtract_b_dec=True,
        threshold_log=log,
        hook=hook_at(config, cfg, "hook_point"),
        model_name=str(cfg.get("model_name") or ""),
    )


def _transform(config: Path, cfg: Mapping[str, Any]) -> str:
    return "layer_norm" if flag(config, cfg, "input_unit_norm", default=False) else "none"


def _without_bias(
    config: Path, cfg: Mapping[str, Any], tensors: dict[str, Tensor], kind: str
) -> dict[str, Tensor]:
    """The tensors, b_enc zeroed where the encoder doesn't add it.

    Later releases of the library dropped the key and add no bias to (batch) topk.
    """
    adds = flag(config, cfg, "use_encoder_bias", default=kind not in ("topk", "batchtopk"))
    bias = tensors.get("b_enc")
    if adds or bias is None:
        return tensors
    if "use_encoder_bias" not in cfg and bias.rows().any():
        raise SaeError(
            f"{config} lacks use_encoder_bias, and the checkpoint has a bias that is not 0, "
            "expected the two to agree: add the key as in training"
        )
    return tensors | {"b_enc": ArrayTensor(np.zeros(bias.shape, np.float32))}


FORMAT = Format("batch-topk", detect, read, files=(WEIGHTS, CONFIG), loaders=())
