"""Configuration files of checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fpo_core.errors import SaeError
from fpo_core.io.regular import read_json_object
from fpo_core.sae.hook import Hook


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, bounded in size and depth. Raises SaeError."""
    return read_json_object(path, _unreadable)


def _unreadable(text: str) -> SaeError:
    return SaeError(
        f"{text}, expected the checkpoint's configuration: download or save it again, or give the "
        "folder that holds it"
    )


def mapping(path: Path, cfg: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A JSON object of a configuration, empty where it is absent or null. Raises SaeError."""
    value = cfg.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise SaeError(f"{path} has {key} {value!r}, expected a mapping: correct it")
    return value or {}


def whole(path: Path, cfg: Mapping[str, Any], key: str) -> int:
    """A positive whole number of a configuration. Raises SaeError."""
    value = cfg.get(key)
    if type(value) is not int or value < 1:
        raise SaeError(f"{path} has {key} {value!r}, expected a positive whole number: correct it")
    return value


def positive(path: Path, cfg: Mapping[str, Any], key: str) -> float:
    """A positive number of a configuration. Raises SaeError."""
    value = cfg.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        raise SaeError(f"{path} has {key} {value!r}, expected a positive number: correct it")
    return float(value)


def flag(path: Path, cfg: Mapping[str, Any], key: str, *, default: bool) -> bool:
    """A yes or no of a configuration, `default` where it is absent or null. Raises SaeError."""
    value = cfg.get(key)
    if value is not None and not isinstance(value, bool):
        raise SaeError(f"{path} has {key} {value!r}, expected true or false: correct it")
    return default if value is None else value


def hook_at(path: Path, cfg: Mapping[str, Any], key: str, prefix: str = "") -> Hook | None:
    """The hook that a key names, after `prefix`; None where it is absent. Raises SaeError."""
    if cfg.get(key) is None:
        return None
    try:
        return Hook.parse(f"{prefix}{cfg[key]}")
    except SaeError as error:
        raise SaeError(f"{path} has {key} {cfg[key]!r}: {error}") from None
