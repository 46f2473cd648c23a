"""How a result came to be: its command line without private paths, and versions of libraries."""

import shlex
from dataclasses import MISSING, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fpo_core import __version__
from fpo_core.config import TrainConfig
from fpo_core.config.backends import BACKENDS
from fpo_core.evaluation.model_card import shown

PLACES = (
    *("model", "adapter", "data", "sae", "feature_weights", "text", "prompts", "output"),
    *("reference", "judge", "judge_template"),
)
LEFT_OUT = ("cache", "resume", "allow_change", "dry_run", "push_to_hub", "report_to", "verdicts")


def command_of(config: TrainConfig) -> str:
    """`fpo train` with every setting that is not at its default; of a path, the last part alone."""
    words = ["fpo train"]
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in LEFT_OUT or (value == field.default and field.default is not MISSING):
            continue
        option = field.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
            continue
        items = value if isinstance(value, tuple) else (value,)
        text = ",".join(_public(str(i)) if field.name in PLACES else str(i) for i in items)
        words.append(f"--{option} {shlex.quote(text)}")
    return " \\\n  ".join(words)


def setting_text(name: str, value: Any) -> str:
    """A setting for a reader; of a path, the last part alone: results are sent on."""
    if isinstance(value, list | tuple):
        return ", ".join(setting_text(name, item) for item in value)
    if isinstance(value, float):
        return f"{value:g}"
    return "–" if value is None else _public(str(value)) if name in PLACES else str(value)


def _public(place: str) -> str:
    """Of a path, the last part alone; no address, which may be a house's own or hold a password."""
    return "URL" if place.startswith(("http://", "https://")) else shown(place)


def versions_of(backend: str) -> dict[str, str | None]:
    """Versions of this program and of what a backend computes with, None where absent."""
    names = (*BACKENDS[backend].libraries, "transformers", "peft", "safetensors")
    return {"fpo-mlx": __version__} | {name: library_version(name) for name in dict.fromkeys(names)}


def library_version(library: str) -> str | None:
    """The installed version of a library; None where there is none."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None
