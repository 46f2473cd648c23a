"""Settings from a YAML file."""

from datetime import date
from pathlib import Path
from typing import Any

from fpo_core.config.spellings import canonical
from fpo_core.errors import ConfigError
from fpo_core.io import regular

_READ = {
    *(
        "adapter",
        "base",
        "base_adapter",
        "data",
        "other_adapter",
        "feature_weights",
        "file",
        "model",
        "negative",
    ),
    *("positive", "runs", "sae", "settings", "source", "text"),
    *("answers", "baseline", "judge", "judge_template", "llama_cpp", "prompts", "value"),
}
"""Settings that name what is there already: a path, or something on the hub."""
_WRITTEN = {"cache", "out", "output", "reference", "report", "verdicts"}
"""Settings that name a path which may not exist yet."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys of a YAML file, in snake case; relative paths are relative to the file.

    Raises ConfigError for a file that cannot be read, or names a setting twice.
    """
    values = regular.read_yaml(path, lambda text: ConfigError(f"the configuration {text}"))
    if not isinstance(values, dict | None):
        raise ConfigError(f"the configuration {path} holds no keys, expected lines like `beta: 1`")
    settings: dict[str, Any] = {}
    for key, value in (values or {}).items():
        name = canonical(str(key))
        if name in settings:
            raise ConfigError(f"the configuration {path} sets {name} twice: remove {key!r}")
        # YAML reads 2024-07-26 as a date; no setting is one.
        text = value.isoformat() if isinstance(value, date) else value
        settings[name] = _located(name, text, path.parent)
    return settings


def _located(name: str, value: Any, folder: Path) -> Any:
    """A path as seen from where the program runs; anything else as it is."""
    if isinstance(value, list):
        return [_located(name, item, folder) for item in value]
    if not isinstance(value, str) or name not in _READ | _WRITTEN:
        return value
    if "," in value and name in ("sae", "value"):
        return ",".join(_located(name, item, folder) for item in value.split(","))
    if Path(value).expanduser().is_absolute():
        return value
    # What is read may be a hub's name, or a path from where the program runs, as it always was.
    of_file = name in _WRITTEN or value.startswith(".") or (folder / value).exists()
    return str(folder / value) if of_file else value
