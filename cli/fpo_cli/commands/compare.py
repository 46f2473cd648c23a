"""`fpo compare`: objectives, or any settings, side by side."""

import os
from pathlib import Path
from typing import Any

import typer

import fpo
from fpo_cli.commands.quickstart import SETTINGS, TOKENS
from fpo_cli.console.command import command
from fpo_cli.console.options import read_yaml
from fpo_cli.console.ui import Ui
from fpo_core.config import CompareConfig

WORLD_GRID = Path(fpo.__file__).parent / "comparison" / "world.yaml"


def compare(config: CompareConfig, ui: Ui) -> dict[str, Any]:
    """Train objectives, or any grid over settings, from one stored reference, and compare them.

    Every run has the same seeds and batches. Writes compare.md, .csv, .json and .png: accuracy,
    diversity, drift, time and memory, with their spread over seeds. Stopped at any point, the same
    command goes on: finished runs are read, a begun one resumes.
    """
    if config.settings is None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in the quickstart
    from fpo.comparison.workflow import compare as run
    from fpo.example_inputs import quickstart_world

    if config.settings is not None:
        return {"command": "compare"} | run(config, ui)
    world = quickstart_world(SETTINGS, TOKENS)
    return {"command": "compare"} | run(config, ui, world, read_yaml(WORLD_GRID)["grid"])


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "compare", CompareConfig)(compare)
