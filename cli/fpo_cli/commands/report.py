"""`fpo report`: the page of a run, or of several."""

from typing import Any

import typer

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.display import progress
from fpo_cli.console.ui import Ui
from fpo_core.config import ReportConfig


def report(config: ReportConfig, ui: Ui) -> dict[str, Any]:
    """Make one HTML file of what a run, or several, came to; it loads nothing, so send it on.

    Of a run: verdict, measurements, curves, held-out pairs token by token, samples, features that
    moved. Of several, or of a comparison: accuracy against KL, a table, the settings that differ.
    """
    with progress(ui) as sink:
        result = fpo.report(config, sink=sink)
    ui.say(f"{result.file}: {result.bytes / 2**20:.1f} MiB, to open in any browser")
    return result.to_mapping()


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "report", ReportConfig, arguments=("runs",))(report)
