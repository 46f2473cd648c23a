"""`fpo doctor`: what is installed, and what it can use."""

from typing import Any

import typer

from fpo_cli.command import command
from fpo_cli.ui import Ui
from fpo_core.config import DoctorConfig


def doctor(config: DoctorConfig, ui: Ui) -> dict[str, Any]:
    """Say which backends, devices and versions are here, and how to get what is missing."""
    from fpo_cli.diagnosis import diagnose, lines

    found = diagnose(config)
    for line in lines(found):
        ui.say(line)
    return {"command": "doctor"} | found


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "doctor", DoctorConfig)(doctor)
