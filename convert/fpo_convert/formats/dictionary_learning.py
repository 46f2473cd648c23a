"""dictionary_learning: ae.pt and config.json, whose dict_class names the architecture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fpo_convert.formats.json_file import flag, mapping, read_json, whole
from fpo_convert.formats.keys import refuse_unknown
from fpo_convert.row_readers import Tensor, scalar, transposed
from fpo_convert.source_formula import Format, Options, Source
from fpo_convert.torch_file import load_pt, tensors_of
from fpo_core.errors import SaeError
from fpo_core.sae.hook import Hook

FILES = WEIGHTS, CONFIG = "ae.pt", "config.json"
# class -> architecture, whether b_dec is subtracted from the input
_CLASSES = {
    "AutoEncoder": ("relu", True),
    "AutoEncoderNew": ("relu", False),
    "GatedAutoEncoder": ("gated", True),
    "JumpReluAutoEncoder": ("jumprelu", False),
    "AutoEncoderTopK": ("topk", True),
    "BatchTopKSAE": ("jumprelu", True),
    "MatryoshkaBatchTopKSAE": ("jumprelu", True),
}
_NAMES = {
    "encoder.weight": "W_enc",
    "decoder.weight": "W_dec",
    "encoder.bias": "b_enc",
    "bias": "b_dec",
    "decoder.bias": "b_dec",
    "decoder_bias": "b_dec",
    "gate_bias": "b_gate",
    "mag_bias": "b_mag",
}
_UNDERSTOOD = {
    *("activation_dim", "dict_class", "dict_size", "k", "layer", "lm_name", "submodule_name"),
}
_TRAINING = """
activation_queue_length adaptive_sparsity_penalty anneal_end anneal_start auxk_alpha bandwidth
dead_feature_threshold decay_start device gp_reg_coeff group_fractions group_sizes group_weights
initial_sparsity_penalty k_anneal_steps l0_penalty l1_penalty lambda_warm_steps lr
n_sparsity_updates p_end p_start resample_steps seed sparsity_coefficient sparsity_function
sparsity_loss_queue_length sparsity_penalty sparsity_queue_length sparsity_warmup_steps steps
steps_before_annealing target_l0 threshold_beta threshold_start_step top_k_aux trainer_class
wandb_name warmup_steps weights_temperature
"""
_SITES = {"resid_post": "resid_post", "mlp": "mlp_out", "attn": "attn_out", "attention": "attn_out"}


def detect(path: Path) -> bool:
    """Whether `path` is such a file or holds one."""
    return path.name == WEIGHTS or (path / WEIGHTS).is_file()


def read(path: Path, options: Options) -> Source:
    """Batch-wise classes encode with their running threshold, as jumprelu. Raises SaeError."""
    weights = path if path.suffix == ".pt" else path / WEIGHTS
    config = weights.parent / CONFIG
    cfg = read_json(config)
    trainer = mapping(config, cfg, "trainer")
    buffer = mapping(config, cfg, "buffer")
    refuse_unknown(config, cfg, ("trainer", "buffer"), free=True)
    refuse_unknown(config, trainer, _UNDERSTOOD, ignored=_TRAINING.split(), defaulted=("layer",))
    refuse_unknown(config, buffer, ("remove_bos",), free=True)
    name = trainer.get("dict_class")
    if not isinstance(name, str) or name not in _CLASSES:
        raise SaeError(
            f"{config} has dict_class {name!r}, expected one of {', '.join(_CLASSES)}: use such a "
            "checkpoint"
        )
    architecture, subtract = _CLASSES[name]
    content = load_pt(weights)
    tensors = {_NAMES.get(n, n): _tensor(n, t) for n, t in tensors_of(content).items()}
    # Other classes save the threshold of a batch-wise top k too, and never use it to encode.
    if architecture != "jumprelu":
        tensors.pop("threshold", None)
    elif "threshold" in tensors:
        _check_threshold(weights, tensors["threshold"], name)
    k = options.k or _k(config, content, trainer) if architecture == "topk" else None
    return Source(
        files=(weights, config),
        architecture=architecture,
        tensors=tensors,
        d_in=whole(config, trainer, "activation_dim"),
        d_sae=whole(config, trainer, "dict_size"),
        k=k,
        subtract_b_dec=subtract,
        hook=_hook(config, trainer),
        model_name=str(trainer.get("lm_name") or ""),
        untrained_tokens=("bos",) if flag(config, buffer, "remove_bos", default=False) else (),
    )


def _tensor(name: str, stored: Tensor) -> Tensor:
    return transposed(stored) if name in ("encoder.weight", "decoder.weight") else stored


def _check_threshold(path: Path, threshold: Tensor, name: str) -> None:
    if threshold.shape == () and scalar(threshold) < 0:
        raise SaeError(
            f"{path}: the {name} has threshold {scalar(threshold)}, which training never set, "
            "expected at least 0: use a checkpoint from later in training"
        )


def _k(config: Path, content: Mapping[str, Any], trainer: Mapping[str, Any]) -> Any:
    """k of the weights, which is that of the configuration where both state it."""
    stored, stated = content.get("k"), trainer.get("k")
    if None not in (stored, stated) and stored != stated:
        raise SaeError(
            f"{config} has k {stated!r}, and the weights have {stored!r}, expected the same: use "
            "another checkpoint"
        )
    return stated if stored is None else stored


def _hook(config: Path, trainer: Mapping[str, Any]) -> Hook | None:
    layer, submodule = trainer.get("layer"), trainer.get("submodule_name") or "resid_post"
    site = next((site for key, site in _SITES.items() if key in str(submodule)), None)
    if layer is None:
        return None
    if type(layer) is not int or site is None:
        raise SaeError(
            f"{config} has layer {layer!r} and submodule_name {submodule!r}, expected a number and "
            "a name with resid_post, mlp or attn: correct them, or give the hook"
        )
    return Hook(layer, site)


FORMAT = Format("dictionary-learning", detect, read, FILES, loaders=("dictionary_learning_1",))
