"""`fpo sae list`: which autoencoders are published for a model."""

from typing import Any

import typer

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.display import progress
from fpo_cli.console.ui import Ui
from fpo_core.config import SaeListConfig


def sae_list(config: SaeListConfig, ui: Ui) -> dict[str, Any]:
    """Show published autoencoders that fit a model, the recommended one first, then by fitness.

    Pass a source to `fpo convert sae`. Fit is what was trained on the model itself, on its residual
    stream, deep, with about 16,384 features of which about 100 fire. Recommended is the fittest of
    the residual stream that reads what the trained blocks write. With --json, all are listed.
    """
    with progress(ui) as sink:
        result = fpo.list_saes(config, sink=sink)
    ui.table(result.table(), numbers=False)
    return result.to_mapping()


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "list", SaeListConfig)(sae_list)
