"""SAELens's cfg.json of any version, with the keys of version 6."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fpo_convert.formats.json_file import mapping, read_json

_RENAMED = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
_ABOUT_MODEL = (
    "model_name",
    "hook_name",
    "hf_hook_name",
    "hook_head_index",
    "seqpos_slice",
    "prepend_bos",
    "exclude_special_tokens",
    "neuronpedia_id",
    "model_from_pretrained_kwargs",
    "sae_lens_version",
    "sae_lens_training_version",
    "fpo_untrained_tokens",
    "fpo_centred",
    "training_architecture",
    "training_architecture_details",
)


def version(text: object) -> tuple[int, int, int] | None:
    """A release as three numbers (pre-releases count as the release), or None."""
    match = re.match(
        r"v?(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?", text if isinstance(text, str) else ""
    )
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def normalise_cfg(path: Path, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's cfg.json as one flat mapping; `legacy` is true before version 6.

    Metadata keys come to the top level, `overrides` replace keys, and defaults that older releases
    did not write are filled in.
    """
    raw = read_json(path)
    metadata = mapping(raw.get("metadata"))
    release = version(raw.get("sae_lens_version")) or version(metadata.get("sae_lens_version"))
    legacy = release is None or release < (6, 0, 0)
    cfg = {_RENAMED.get(key, key): value for key, value in raw.items() if key != "metadata"}
    cfg |= {key: metadata[key] for key in _ABOUT_MODEL if key in metadata}
    cfg |= overrides
    if legacy:
        _fill_legacy(cfg)
    return cfg | {"legacy": legacy}


def _fill_legacy(cfg: dict[str, Any]) -> None:
    cfg["architecture"] = cfg.get("architecture") or "standard"
    cfg["activation_fn"] = cfg.get("activation_fn") or "relu"
    for key, value in (("apply_b_dec_to_input", True), ("prepend_bos", True)):
        cfg[key] = cfg.get(key, value)
    normalize = cfg.get("normalize_activations")
    if isinstance(normalize, bool):
        cfg["normalize_activations"] = "expected_average_only_in" if normalize else "none"
    kwargs = mapping(cfg.get("activation_fn_kwargs"))
    if cfg["activation_fn"] == "topk" and kwargs.get("k") is not None:
        cfg |= {"architecture": "topk", "k": kwargs["k"], "activation_fn": "relu"}


def untrained_tokens(cfg: Mapping[str, Any]) -> tuple[str, ...]:
    """The special tokens excluded from training, as `SaeMeta` names them."""
    exported = cfg.get("fpo_untrained_tokens")
    if isinstance(exported, list):
        return tuple(str(token) for token in exported)
    excluded = cfg.get("exclude_special_tokens")
    if isinstance(excluded, list):
        names = [f"id:{i}" for i in excluded if type(i) is int and i >= 0]
    else:
        names = ["bos", "eos", "pad", "special"] if excluded is True else []
    if cfg.get("prepend_bos") is False and "bos" not in names:
        names.insert(0, "bos")
    return tuple(names)
