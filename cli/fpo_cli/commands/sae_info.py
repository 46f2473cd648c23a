"""`fpo sae info`: what an autoencoder is."""

from typing import Any

import typer

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.display import progress
from fpo_cli.console.ui import Ui
from fpo_core.config import SaeInfoConfig


def sae_info(config: SaeInfoConfig, ui: Ui) -> dict[str, Any]:
    """Show what an autoencoder made by `fpo convert sae` is, and where it came from."""
    with progress(ui) as sink:
        result = fpo.sae_info(config, sink=sink)
    width = max(map(len, result.values))
    for name, value in result.table().rows:
        ui.say(f"{name:<{width}}  {value}")
    return result.to_mapping()


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "info", SaeInfoConfig, arguments=("file",))(sae_info)
