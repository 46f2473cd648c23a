"""SAELens's configuration of every era, brought to the keys of version 6."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fpo_core.errors import SaeError

_RENAMED = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
_ABOUT_MODEL = (
    "model_name",
    "hook_name",
    "hook_head_index",
    "seqpos_slice",
    "prepend_bos",
    "exclude_special_tokens",
    "neuronpedia_id",
    "model_from_pretrained_kwargs",
    "sae_lens_version",
    "sae_lens_training_version",
    "training_architecture",
    "training_architecture_details",
)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises SaeError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SaeError(
            f"{path} cannot be read ({error.strerror}), expected the checkpoint's configuration: "
            "give the folder that holds it"
        ) from None
    except (ValueError, RecursionError) as error:
        raise SaeError(f"{path} is not JSON ({error}): download or save it again") from None
    if not isinstance(value, dict):
        raise SaeError(f"{path} is not a JSON object: download or save it again")
    return value


def version(text: object) -> tuple[int, int, int] | None:
    """A release as three numbers (pre-releases count as the release), or None."""
    found = (
        re.match(r"v?(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?", text) if isinstance(text, str) else None
    )
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def normalise_cfg(path: Path) -> dict[str, Any]:
    """A checkpoint's cfg.json flattened to version 6's keys, `legacy` telling its era.

    Metadata keys come to the top level; what older releases left implicit is filled in.
    """
    raw = read_json(path)
    metadata = raw.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    release = version(raw.get("sae_lens_version")) or version(metadata.get("sae_lens_version"))
    legacy = release is None or release < (6, 0, 0)
    cfg = {_RENAMED.get(key, key): value for key, value in raw.items() if key != "metadata"}
    cfg |= {key: metadata[key] for key in _ABOUT_MODEL if key in metadata}
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
    kwargs = cfg.get("activation_fn_kwargs")
    kwargs = kwargs if isinstance(kwargs, Mapping) else {}
    if cfg["activation_fn"] == "topk" and kwargs.get("k") is not None:
        cfg |= {"architecture": "topk", "k": kwargs["k"], "activation_fn": "relu"}


def untrained_tokens(cfg: Mapping[str, Any]) -> tuple[str, ...]:
    """Which special tokens the autoencoder never saw, from its training settings."""
    excluded = cfg.get("exclude_special_tokens")
    if isinstance(excluded, list):
        names = [f"id:{i}" for i in excluded if type(i) is int and i >= 0]
    else:
        names = ["bos", "eos", "pad", "special"] if excluded is True else []
    if cfg.get("prepend_bos") is False and "bos" not in names:
        names.insert(0, "bos")
    return tuple(names)
