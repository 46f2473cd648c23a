"""`fpo sae check`: how well an autoencoder fits a model."""

from typing import Any

import typer

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.display import progress
from fpo_cli.console.ui import Ui
from fpo_core.config import SaeCheckConfig


def sae_check(config: SaeCheckConfig, ui: Ui) -> dict[str, Any]:
    """Measure how well an autoencoder explains a model on your data, and say whether it fits.

    The first pairs are read twice: as raw text, and under the model's chat template.
    """
    with progress(ui) as sink:
        result = fpo.check_sae(config, sink=sink)
    table = result.table()
    ui.say(f"{result.sae} at {result.hook} of {result.model}")
    ui.table(table)
    for line in table.below:
        ui.say(line)
    return result.to_mapping()


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "check", SaeCheckConfig, arguments=("sae",))(sae_check)
