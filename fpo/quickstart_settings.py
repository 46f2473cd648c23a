"""The quickstart's own defaults, read without loading what a run needs."""

from pathlib import Path
from typing import Any

from fpo_core.config import QuickstartConfig
from fpo_core.config.yaml_file import read_yaml

QUICKSTART_SETTINGS = Path(__file__).parent / "quickstart.yaml"
_SAMPLES = 200
"""Held-out prompts: all of them. The mean score of 100 samples has a standard error of 0.05."""


def quickstart_defaults() -> dict[str, Any]:
    """What stands in for the defaults of `QuickstartConfig`: the YAML file's settings."""
    names = QuickstartConfig.names()
    settings = {k: v for k, v in read_yaml(QUICKSTART_SETTINGS).items() if k in names}
    return settings | {"samples": _SAMPLES}
