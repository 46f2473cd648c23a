"""`fpo quickstart`: the whole road on the world that ships with the package."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import typer

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.options import read_yaml
from fpo_cli.console.ui import Ui
from fpo_core.config import QuickstartConfig

SETTINGS = Path(fpo.__file__).parent / "quickstart.yaml"
SAMPLES = 200
"""Held-out prompts: all of them. The mean score of 100 samples has a standard error of 0.05."""
TOKENS = 48
"""Most tokens of a sampled completion: the world's longest reply fits."""


def quickstart(config: QuickstartConfig, ui: Ui) -> dict[str, Any]:
    """Align the embedded tiny model with FPO, end to end, in about a minute.

    Converts the world's autoencoder, builds the reference store, trains, and shows the model
    before and after. Needs no network. Its settings are those of `fpo train`, in quickstart.yaml.
    """
    # Threads of a BLAS wait for each other by spinning, which on products this small costs more
    # than it brings: on two busy cores, one thread took 50 s and two 210 s.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from fpo.example_inputs import quickstart_world
    from fpo.quickstart_run import first_run

    return {"command": "quickstart"} | first_run(config, ui, quickstart_world(SETTINGS, TOKENS))


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    names = {field.name for field in dataclasses.fields(QuickstartConfig)}
    defaults = {name: value for name, value in read_yaml(SETTINGS).items() if name in names}
    defaults["samples"] = SAMPLES
    command(app, "quickstart", QuickstartConfig, defaults=defaults)(quickstart)
