"""`fpo data inspect`: what the model sees of the pairs."""

from typing import Any

import typer

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.display import progress
from fpo_cli.console.ui import Ui
from fpo_core.config import InspectConfig


def data_inspect(config: InspectConfig, ui: Ui) -> dict[str, Any]:
    """Show tokens of pairs with prompt, completion and padding marked, and count all rows.

    Prompt tokens are cyan, the completion's, which are scored, green, padding grey.
    """
    from fpo_cli.console.token_rows import render

    with progress(ui) as sink:
        result = fpo.inspect_data(config, sink=sink)
    render(result.rows, ui.out)
    for line in result.report.lines():
        ui.say(line)
    return result.to_mapping()


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "inspect", InspectConfig)(data_inspect)
