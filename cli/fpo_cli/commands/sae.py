"""`fpo sae info` and `fpo sae features`: what an autoencoder is, and what its features tell."""

from typing import Any

import typer

from fpo_cli.command import command
from fpo_cli.ui import Ui
from fpo_core.config import SaeFeaturesConfig, SaeInfoConfig


def sae_info(config: SaeInfoConfig, ui: Ui) -> dict[str, Any]:
    """Show what an autoencoder made by `fpo convert sae` is, and where it came from."""
    import fpo_convert.sae as converter

    info = converter.sae_info(config.file, verify=config.verify)
    width = max(map(len, info))
    for name, value in info.items():
        ui.say(f"{name:<{width}}  {_shown(value)}")
    return {"command": "sae info"} | info


def sae_features(config: SaeFeaturesConfig, ui: Ui) -> dict[str, Any]:
    """Rank features by how much more they fire on one set of texts than on another.

    The difference is that of mean features. With --out, the first --top of them become a file for
    `fpo train --feature-weights`, whose D compares just these.
    """
    from fpo_cli.features import rank_features

    return {"command": "sae features"} | rank_features(config, ui)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value in (None, "") else str(value)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    group = typer.Typer(name="sae", help="Look at autoencoders.", no_args_is_help=True)
    command(group, "info", SaeInfoConfig, arguments=("file",))(sae_info)
    command(group, "features", SaeFeaturesConfig)(sae_features)
    app.add_typer(group)
