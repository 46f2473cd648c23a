"""Settings from a YAML file."""

from pathlib import Path
from typing import Any

from fpo_core.errors import ConfigError

ALIASES = {"max_seq_length": "max_length", "temperature": "temp"}
"""Second names of settings, as TRL and mlx-lm spell them."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys of a YAML file, in snake case. ConfigError for one that cannot be read."""
    # Imported here: most commands are run without a file.
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"the configuration {path} cannot be read: {reason}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"the configuration {path} is not YAML: {reason}") from None
    if not isinstance(values, dict | None):
        raise ConfigError(f"the configuration {path} holds no keys, expected lines like `beta: 1`")
    renamed = {alias: name for name, alias in ALIASES.items()}
    names = {key: str(key).replace("-", "_") for key in values or {}}
    return {renamed.get(names[key], names[key]): value for key, value in (values or {}).items()}
