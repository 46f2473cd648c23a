"""The weights that an adapter was trained on, in `fpo_base.json` beside it."""

import json
from pathlib import Path

from fpo_core.io.atomic import write_json
from fpo_core.models.folder import ModelFolder

BASE_FILE = "fpo_base.json"


def write_base(folder: Path, model: ModelFolder) -> None:
    """Write the name and the hash of the model under the adapter in `folder`."""
    write_json(folder / BASE_FILE, {"model": model.name, "sha256": model.fingerprint()})


def base_change(folder: Path, model: ModelFolder) -> str | None:
    """A sentence where `model` is not what the adapter was trained on; None where that is unknown.

    A hash is of configuration and weights, so a copy under another name is the same model.
    """
    try:
        trained_on = json.loads((folder / BASE_FILE).read_text(encoding="utf-8"))
        if trained_on["sha256"] == model.fingerprint():
            return None
        name = trained_on["model"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    other = f"on {name}" if name != model.name else f"on {name} with other contents than now"
    return f"the adapter {folder} was trained {other}, so on {model.name} it means another change"
