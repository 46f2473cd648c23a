"""Settings from a YAML file."""

from pathlib import Path
from typing import Any

from fpo_core.errors import ConfigError
from fpo_core.io import regular

ALIASES = {"max_seq_length": "max_length", "temperature": "temp"}
"""Second names of settings, as TRL and mlx-lm spell them."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys of a YAML file, in snake case. ConfigError for one that cannot be read."""
    values = regular.read_yaml(path, lambda text: ConfigError(f"the configuration {text}"))
    if not isinstance(values, dict | None):
        raise ConfigError(f"the configuration {path} holds no keys, expected lines like `beta: 1`")
    renamed = {alias: name for name, alias in ALIASES.items()}
    names = {key: str(key).replace("-", "_") for key in values or {}}
    return {renamed.get(names[key], names[key]): value for key, value in (values or {}).items()}
