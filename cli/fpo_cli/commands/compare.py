"""`fpo compare`: objectives, or any settings, side by side."""

import os
from typing import Any

import typer

from fpo_cli.command import command
from fpo_cli.ui import Ui
from fpo_core.config import CompareConfig


def compare(config: CompareConfig, ui: Ui) -> dict[str, Any]:
    """Train objectives, or any grid over settings, from one stored reference, and compare them.

    Every run has the same seeds and batches. Writes compare.md, .csv, .json and .png: accuracy,
    diversity, drift, time and memory, with their spread over seeds. Stopped at any point, the same
    command goes on: finished runs are read, a begun one resumes.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1") if config.settings is None else None
    from fpo_cli.compare.command import compare as run

    return {"command": "compare"} | run(config, ui)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "compare", CompareConfig)(compare)
