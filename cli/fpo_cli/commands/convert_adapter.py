"""`fpo convert adapter`: adapters between PEFT and mlx-lm."""

from typing import Any

import typer

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.display import progress
from fpo_cli.console.ui import Ui
from fpo_core.config import ConvertAdapterConfig


def convert_adapter(config: ConvertAdapterConfig, ui: Ui) -> dict[str, Any]:
    """Convert an adapter of PEFT's or mlx-lm's into a folder that the other, or both, open.

    LoRA, DoRA, rsLoRA and ranks or strengths per module; what only one library has is refused.
    """
    with progress(ui) as sink:
        result = fpo.convert_adapter(config, sink=sink)
    report = result.report
    ui.say(
        f"{report.out}: {report.fine_tune_type}, rank {report.rank}, scale {report.scale:g}, "
        f"{len(report.blocks)} blocks, {', '.join(report.modules)}"
    )
    return result.to_mapping()


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "adapter", ConvertAdapterConfig, arguments=("source",))(convert_adapter)
