"""`fpo sae info`: what an autoencoder file says about itself."""

from typing import Any

import typer

from fpo_cli.command import command
from fpo_cli.ui import Ui
from fpo_core.config import SaeInfoConfig


def sae_info(config: SaeInfoConfig, ui: Ui) -> dict[str, Any]:
    """Show what an autoencoder made by `fpo convert sae` is, and where it came from."""
    import fpo_convert.sae as converter

    info = converter.sae_info(config.file, verify=config.verify)
    width = max(map(len, info))
    for name, value in info.items():
        ui.say(f"{name:<{width}}  {_shown(value)}")
    return {"command": "sae info"} | info


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
    app.add_typer(group)
