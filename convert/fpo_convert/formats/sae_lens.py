"""SAELens checkpoints of every era: cfg.json and sae_weights.safetensors in one folder."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fpo_convert.formats.json_file import flag, hook_at, read_json, whole
from fpo_convert.formats.sae_lens_cfg import normalise_cfg, untrained_tokens
from fpo_convert.formats.sae_lens_rules import (
    RUNNER_CONFIG,
    is_centred,
    lacks_value_bias,
    threshold_fault,
)
from fpo_convert.row_readers import FileTensor, Tensor, scalar
from fpo_convert.source_formula import Format, Options, Source, Whitening
from fpo_core.errors import SaeError
from fpo_core.io.reader import SafetensorsFile, open_safetensors
from fpo_core.sae.hook import Hook

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
SCALER, STATE = "activation_scaler.json", "activations_store_state.safetensors"
WHITENING = "activation_whitening.safetensors"
FILES = (CONFIG, WEIGHTS, RUNNER_CONFIG, SCALER, WHITENING, STATE)
# Encoding with batchtopk uses the running threshold of its training: a jumprelu.
_ARCHITECTURES = {
    "standard": "relu",
    "gated": "gated",
    "topk": "topk",
    "abstopk": "abstopk",
    "jumprelu": "jumprelu",
    "batchtopk": "jumprelu",
    "matryoshka_batchtopk": "jumprelu",
    "transcoder": "relu",
    "skip_transcoder": "relu",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}
_NORMALISATIONS = (
    "none",
    "expected_average_only_in",
    "layer_norm",
    "constant_norm_rescale",
    "covariance_whitening",
)


def detect(folder: Path) -> bool:
    """Whether `folder` is a SAELens checkpoint, possibly with a file missing."""
    if folder.is_file():
        return folder.name == WEIGHTS
    sparsify = (folder / "sae.safetensors").exists()  # which has a cfg.json too
    return (folder / WEIGHTS).exists() or ((folder / CONFIG).is_file() and not sparsify)


def read(folder: Path, options: Options) -> Source:
    """Read a SAELens folder. Raises SaeError for what it cannot represent."""
    folder = folder.parent if folder.is_file() else folder
    cfg = normalise_cfg(folder / CONFIG, options.overrides)
    file = open_safetensors(folder / WEIGHTS)
    name, architecture = _architecture(folder, cfg)
    _refuse_unsupported(folder, cfg)
    tensors = _tensors(file, name)
    decoder_factor = _decoder_factor(folder / CONFIG, tensors, cfg)
    scale, whitening = _normalisation(folder, cfg, options)
    hook = _hook(folder / CONFIG, cfg, options)
    factor, warnings = threshold_fault(folder, cfg, options.norm_factor)
    transcoder = "transcoder" in name
    subtract = flag(folder / CONFIG, cfg, "apply_b_dec_to_input", default=not transcoder)
    rescale = flag(folder / CONFIG, cfg, "rescale_acts_by_decoder_norm", default=False)
    if transcoder and subtract:
        raise SaeError(
            f"{folder / CONFIG} has apply_b_dec_to_input True for a transcoder, whose b_dec is of "
            "another place than its input, expected false: use another checkpoint"
        )
    d_in, d_sae = (whole(folder / CONFIG, cfg, key) for key in ("d_in", "d_sae"))
    return Source(
        files=(folder / WEIGHTS, folder / CONFIG),
        architecture=architecture,
        tensors=tensors,
        d_in=d_in,
        d_sae=d_sae,
        k=options.k or cfg.get("k") if architecture in ("topk", "abstopk") else None,
        transform=_transform(cfg),
        scale=scale,
        whitening=whitening,
        subtract_b_dec=subtract,
        rescale_by_decoder=rescale
        and name in ("topk", "abstopk", "batchtopk", "matryoshka_batchtopk"),
        centred=is_centred(folder / CONFIG, cfg, hook, options),
        already_centred=flag(folder / CONFIG, cfg, "fpo_centred", default=False),
        without_value_bias=lacks_value_bias(folder / CONFIG, cfg, hook),
        threshold_factor=factor,
        threshold_log="log_threshold" in file.entries,
        decoder_factor=decoder_factor,
        has_decoder=not transcoder,
        hook=hook,
        model_name=str(cfg.get("model_name") or ""),
        untrained_tokens=untrained_tokens(folder / CONFIG, cfg),
        neuronpedia_id=str(cfg.get("neuronpedia_id") or ""),
        warnings=warnings,
    )


def _architecture(folder: Path, cfg: Mapping[str, Any]) -> tuple[str, str]:
    name = cfg.get("architecture")
    if name in ("matching_pursuit", "temporal"):
        why = "encodes iteratively" if name == "matching_pursuit" else "encodes whole sequences"
        raise SaeError(
            f"{folder / CONFIG}: architecture {name!r} {why}, which FPO's encoder x W + b cannot "
            f"express: use one of {', '.join(_ARCHITECTURES)}"
        )
    if not isinstance(name, str) or name not in _ARCHITECTURES:
        raise SaeError(
            f"{folder / CONFIG}: architecture {name!r} is unknown, expected one of "
            f"{', '.join(_ARCHITECTURES)}: use such a checkpoint"
        )
    return name, _ARCHITECTURES[name]


def _refuse_unsupported(folder: Path, cfg: Mapping[str, Any]) -> None:
    fault = None
    if cfg.get("activation_fn", "relu") not in ("relu", None):
        fault = f"activation_fn {cfg['activation_fn']!r}, expected relu or topk"
    elif cfg.get("postact_fn") or cfg.get("signed"):
        fault = "signed or postact_fn set, expected plain features"
    elif cfg.get("hook_head_index") is not None:
        fault = f"hook_head_index {cfg['hook_head_index']!r}, expected all heads together"
    elif cfg.get("seqpos_slice") not in (None, [], [None], ()):
        fault = f"seqpos_slice {cfg['seqpos_slice']!r}, expected training on every position"
    elif cfg.get("normalize_activations") not in (*_NORMALISATIONS, None):
        known = ", ".join(_NORMALISATIONS)
        fault = f"normalize_activations {cfg['normalize_activations']!r}, expected one of {known}"
    elif cfg.get("reshape_activations", "none") not in ("none", "hook_z", None):
        fault = f"reshape_activations {cfg['reshape_activations']!r}, expected none or hook_z"
    if fault:
        raise SaeError(f"{folder / CONFIG} has {fault}: use another checkpoint")


def _tensors(file: SafetensorsFile, name: str) -> dict[str, Tensor]:
    """The weights by the names of inference checkpoints; training ones differ in some."""
    tensors: dict[str, Tensor] = {key: FileTensor(file, key) for key in file.entries}
    for alias, architecture in (("topk_threshold", "batchtopk"), ("log_threshold", "jumprelu")):
        if alias in tensors and architecture in name and "threshold" not in tensors:
            tensors["threshold"] = tensors.pop(alias)
    if "finetuning_scaling_factor" in tensors:
        tensors["scaling_factor"] = tensors.pop("finetuning_scaling_factor")
    return tensors


def _transform(cfg: Mapping[str, Any]) -> str:
    name = cfg.get("normalize_activations") or "none"
    return name if name in ("layer_norm", "constant_norm_rescale") else "none"


def _normalisation(
    folder: Path, cfg: Mapping[str, Any], options: Options
) -> tuple[float, Whitening | None]:
    name = cfg.get("normalize_activations") or "none"
    if name == "covariance_whitening":
        return 1.0, _whitening(folder)
    if name != "expected_average_only_in":
        return 1.0, None
    factor = options.norm_factor if options.norm_factor is not None else _stored_factor(folder)
    if factor is None:
        raise SaeError(
            f"{folder} was trained on inputs scaled by √d_in / mean‖x‖ and does not hold that "
            f"factor (no {SCALER}, no {STATE}): give it as norm_factor"
        )
    if not (math.isfinite(factor) and factor > 0):
        raise SaeError(f"{folder}: norm_factor is {factor}, expected a positive number: correct it")
    return float(factor), None


def _stored_factor(folder: Path) -> float | None:
    scaler = folder / SCALER
    if scaler.is_file():
        value = read_json(scaler).get("scaling_factor")
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    state = folder / STATE
    if state.is_file():
        file = open_safetensors(state)
        if "estimated_norm_scaling_factor" in file.entries:
            return scalar(FileTensor(file, "estimated_norm_scaling_factor"))
    return None


def _whitening(folder: Path) -> Whitening:
    path = folder / WHITENING
    if not path.is_file():
        raise SaeError(
            f"{folder} was trained on whitened inputs, and {path.name} is missing: use the "
            "checkpoint folder that holds it"
        )
    file = open_safetensors(path)
    missing = {"mean", "matrix", "inverse_matrix"} - set(file.entries)
    if missing:
        raise SaeError(f"{path} lacks {', '.join(sorted(missing))}: use a complete checkpoint")
    mean, matrix, inverse = (file.rows(key) for key in ("mean", "matrix", "inverse_matrix"))
    d_in = mean.shape[0] if mean.ndim == 1 else -1
    if not matrix.shape == inverse.shape == (d_in, d_in):
        raise SaeError(f"{path} holds shapes that do not fit each other: use a complete checkpoint")
    if not all(np.isfinite(array).all() for array in (mean, matrix, inverse)):
        raise SaeError(f"{path} holds numbers that are not finite: use a sound checkpoint")
    return Whitening(mean, matrix, inverse)


def _decoder_factor(
    config: Path, tensors: dict[str, Tensor], cfg: Mapping[str, Any]
) -> np.ndarray | None:
    """The factor on each decoder row that fine-tuning left, taken out of `tensors`; or None."""
    on = flag(config, cfg, "finetuning_scaling_factor", default=False)
    stored = tensors.pop("scaling_factor", None)
    if stored is None:
        return None
    factor = stored.rows().astype(np.float64)
    expected = tensors["W_enc"].shape[-1:] if "W_enc" in tensors else ()
    if factor.shape != expected or not np.isfinite(factor).all():
        raise SaeError(
            f"scaling_factor has shape {factor.shape} or numbers that are not finite, expected "
            f"{expected}: use a sound checkpoint"
        )
    # SAELens writes ones where it was never fine-tuned, and ignores them.
    ones = np.allclose(factor, 1.0)
    if not ones and not on:
        raise SaeError(
            "scaling_factor is not all ones while finetuning_scaling_factor is off, expected them "
            "to agree: correct cfg.json"
        )
    return None if ones else factor


def _hook(config: Path, cfg: Mapping[str, Any], options: Options) -> Hook | None:
    module = cfg.get("hf_hook_name")
    if options.hook:
        return None
    try:
        return hook_at(config, cfg, "hook_name")
    except SaeError:
        # Transcoders name their input by a TransformerLens hook of several meanings, and, lately,
        # by a module path that has one.
        if not isinstance(module, str):
            raise
        return hook_at(config, cfg, "hf_hook_name")


FORMAT = Format("sae-lens", detect, read, FILES, loaders=("sae_lens",))
