"""`fpo judge`: answers under a judge, and how often they win."""

from typing import Any

import typer

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.display import progress
from fpo_cli.console.ui import Ui
from fpo_core.config import WinRateConfig


def judge(config: WinRateConfig, ui: Ui) -> dict[str, Any]:
    """Judge the answers of a file, or how often they win against those of --baseline.

    Win rates stand as they are and controlled for length, with intervals over prompts. An endpoint
    sees each pair in both orders, and is never asked twice: stopped, the same command goes on.
    """
    with progress(ui) as sink:
        result = fpo.judge(config, sink=sink)
    ui.table(result.table())
    return result.to_mapping()


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "judge", WinRateConfig, arguments=("answers", "baseline"))(judge)
