"""dictionary_learning: ae.pt and config.json, whose dict_class names the architecture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fpo_convert.formats.json_file import mapping, read_json, whole
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
_SITES = {"resid_post": "resid_post", "mlp": "mlp_out", "attn": "attn_out", "attention": "attn_out"}


def detect(path: Path) -> bool:
    """Whether `path` is such a file or holds one."""
    return path.name == WEIGHTS or (path / WEIGHTS).is_file()


def read(path: Path, options: Options) -> Source:
    """Batch-wise classes encode with their running threshold, as jumprelu. Raises SaeError."""
    weights = path if path.suffix == ".pt" else path / WEIGHTS
    config = weights.parent / CONFIG
    cfg = read_json(config)
    trainer = mapping(cfg.get("trainer"))
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
    k = options.k or content.get("k") or trainer.get("k") if architecture == "topk" else None
    buffer = mapping(cfg.get("buffer"))
    return Source(
        files=(weights, config),
        architecture=architecture,
        tensors=tensors,
        d_in=whole(config, trainer, "activation_dim"),
        d_sae=whole(config, trainer, "dict_size"),
        k=k,
        subtract_b_dec=subtract,
        hook=_hook(trainer),
        model_name=str(trainer.get("lm_name") or ""),
        untrained_tokens=("bos",) if buffer.get("remove_bos") is True else (),
    )


def _tensor(name: str, stored: Tensor) -> Tensor:
    return transposed(stored) if name in ("encoder.weight", "decoder.weight") else stored


def _check_threshold(path: Path, threshold: Tensor, name: str) -> None:
    if threshold.shape == () and scalar(threshold) < 0:
        raise SaeError(
            f"{path}: the {name} has threshold {scalar(threshold)}, which training never set, "
            "expected at least 0: use a checkpoint from later in training"
        )


def _hook(trainer: Mapping[str, Any]) -> Hook | None:
    layer, submodule = trainer.get("layer"), str(trainer.get("submodule_name") or "resid_post")
    site = next((site for key, site in _SITES.items() if key in submodule), None)
    if type(layer) is not int or site is None:
        return None
    return Hook(layer, site)


FORMAT = Format("dictionary-learning", detect, read, FILES, loaders=("dictionary_learning_1",))
