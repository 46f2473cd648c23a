"""Hashes in an adapter's own adapter_config.json, where PEFT and mlx-lm ignore them.

A folder without them, as other libraries write it, is read without this check. Fields that say
where the base is and how it is loaded may be edited; what enters the computation may not.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fpo_core.errors import ModelError
from fpo_core.io.digests import SEAL, damages, sealed

KEY = "fpo_integrity"
_EDITABLE = ("base_model_name_or_path", "model", "revision", "inference_mode", "task_type")


def with_hashes(config: Mapping[str, Any], files: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the hashes of the weight files, and of what it says itself."""
    return {**config, KEY: {"files": dict(files), "settings": _settings_sha256(config)}}


def check_hashes(folder: Path, config: Mapping[str, Any], weights: str) -> None:
    """Raise ModelError where the settings, or the file `weights`, are not what was written."""
    if KEY not in config:
        return
    hashes = config[KEY]
    if not isinstance(hashes, dict) or hashes.get("settings") != _settings_sha256(config):
        raise ModelError(
            f"{folder}/adapter_config.json is not what was written: take a sound copy or, if it "
            f"was changed on purpose, remove {KEY} from it"
        )
    files = hashes.get("files")
    expected = files.get(weights) if isinstance(files, dict) else None
    for damage in damages(folder, {weights: expected}):
        raise ModelError(f"{folder}/{damage}: the adapter is damaged, take a sound copy")


def _settings_sha256(config: Mapping[str, Any]) -> str:
    return sealed({k: v for k, v in config.items() if k not in (KEY, *_EDITABLE)})[SEAL]
