"""`fpo train`: phase 2 of FPO, with the reference store found, extended or built first."""

from typing import Any

import typer

from fpo_cli.command import command
from fpo_cli.ui import Ui
from fpo_core.config import TrainConfig


def train(config: TrainConfig, ui: Ui) -> dict[str, Any]:
    """Align a model with FPO on preference pairs.

    Finds, checks, extends or builds the stored reference, trains, and measures start and end on
    held-out pairs. The result lies in --output, with the log, the best and the last checkpoint.
    """
    from fpo_cli.training import check_run, run

    outcome = run(check_run(config), ui)
    for line in outcome.verdict:
        ui.say(line)
    return {"command": "train"} | outcome.to_mapping()


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "train", TrainConfig)(train)
