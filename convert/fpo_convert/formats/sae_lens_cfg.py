"""SAELens's cfg.json of any version, with the keys of version 6."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fpo_convert.formats.json_file import flag, mapping, read_json
from fpo_convert.formats.keys import refuse_unknown
from fpo_convert.formats.sae_lens_keys import IGNORED, METADATA, METADATA_IGNORED, UNDERSTOOD
from fpo_core.errors import SaeError

_RENAMED = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
# What every configuration of an era has: where one lacks such a key, an unknown one may be it.
_ALWAYS = {
    True: ("architecture", "activation_fn", "apply_b_dec_to_input", "normalize_activations"),
    False: ("architecture", "apply_b_dec_to_input", "normalize_activations", "reshape_activations"),
}
_ALWAYS_METADATA = ("hook_name", "prepend_bos", "exclude_special_tokens")
_LOADING = ("center_writing_weights", "fold_ln", "fold_value_biases", "center_unembed")
_LOADING_IGNORED = ("device", "dtype", "torch_dtype", "revision", "attn_implementation")


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
    metadata = mapping(path, raw, "metadata")
    stated = raw.get("sae_lens_version", metadata.get("sae_lens_version"))
    release = version(stated)
    if release is None and stated is not None:
        raise SaeError(f"{path} has sae_lens_version {stated!r}, expected one: correct it")
    legacy = release is None or release < (6, 0, 0)
    cfg = {_RENAMED.get(key, key): value for key, value in raw.items() if key != "metadata"}
    _check_keys(path, cfg, metadata, legacy)
    cfg |= {key: metadata[key] for key in METADATA if key in metadata}
    cfg |= overrides
    if legacy:
        _fill_legacy(path, cfg)
    return cfg | {"legacy": legacy}


def _check_keys(
    path: Path, cfg: Mapping[str, Any], metadata: Mapping[str, Any], legacy: bool
) -> None:
    defaulted = _ALWAYS[legacy]
    refuse_unknown(path, cfg, UNDERSTOOD | METADATA, ignored=IGNORED, defaulted=defaulted)
    always = () if legacy else _ALWAYS_METADATA
    ignored = METADATA_IGNORED
    refuse_unknown(path, metadata, METADATA, ignored=ignored, defaulted=always, free=True)
    for about in (cfg, metadata):
        loading = mapping(path, about, "model_from_pretrained_kwargs")
        refuse_unknown(path, loading, _LOADING, ignored=_LOADING_IGNORED, defaulted=_LOADING[:1])


def _fill_legacy(path: Path, cfg: dict[str, Any]) -> None:
    cfg["architecture"] = cfg.get("architecture") or "standard"
    cfg["activation_fn"] = cfg.get("activation_fn") or "relu"
    for key, value in (("apply_b_dec_to_input", True), ("prepend_bos", True)):
        cfg[key] = cfg.get(key, value)
    normalize = cfg.get("normalize_activations")
    if isinstance(normalize, bool):
        cfg["normalize_activations"] = "expected_average_only_in" if normalize else "none"
    kwargs = cfg.get("activation_fn_kwargs") or {}
    topk = cfg["activation_fn"] == "topk"
    if not isinstance(kwargs, Mapping) or set(kwargs) != ({"k"} if topk else set()):
        raise SaeError(
            f"{path} has activation_fn {cfg['activation_fn']!r} with activation_fn_kwargs "
            f"{kwargs!r}, expected k for topk and none for others: use such a checkpoint"
        )
    if topk:
        cfg |= {"architecture": "topk", "k": kwargs["k"], "activation_fn": "relu"}


def untrained_tokens(path: Path, cfg: Mapping[str, Any]) -> tuple[str, ...]:
    """The special tokens excluded from training, as `SaeMeta` names them."""
    _check_tokens(path, cfg)
    exported = cfg.get("fpo_untrained_tokens")
    if isinstance(exported, list):
        return tuple(str(token) for token in exported)
    excluded = cfg.get("exclude_special_tokens")
    if isinstance(excluded, list):
        names = [f"id:{i}" for i in excluded if type(i) is int and i >= 0]
    else:
        names = ["bos", "eos", "pad", "special"] if excluded is True else []
    if not flag(path, cfg, "prepend_bos", default=True) and "bos" not in names:
        names.insert(0, "bos")
    return tuple(names)


def _check_tokens(path: Path, cfg: Mapping[str, Any]) -> None:
    for key in ("exclude_special_tokens", "fpo_untrained_tokens"):
        if not isinstance(cfg.get(key), bool | list | None):
            raise SaeError(f"{path} has {key} {cfg[key]!r}, expected a list of tokens: correct it")
