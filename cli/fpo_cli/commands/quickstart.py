"""`fpo quickstart`: the whole road on the world that ships with the package."""

from typing import Any

import typer

import fpo
from fpo.quickstart_settings import quickstart_defaults
from fpo_cli.console.command import command
from fpo_cli.console.display import stoppable_progress
from fpo_cli.console.samples import show_sample
from fpo_cli.console.ui import Ui
from fpo_core.config import QuickstartConfig


def quickstart(config: QuickstartConfig, ui: Ui) -> dict[str, Any]:
    """Align the embedded tiny model with FPO, end to end, in about a minute.

    Converts the world's autoencoder, builds the reference store, trains, and shows the model
    before and after. Needs no network. Its settings are those of `fpo train`, in quickstart.yaml.
    """
    with stoppable_progress(ui) as (sink, stop):
        result = fpo.quickstart(config, sink=sink, stop=stop)
    show_first_run(ui, result)
    return result.to_mapping()


def show_first_run(ui: Ui, result: "fpo.QuickstartRun") -> None:
    """Measurements and some samples before and after, and the verdict."""
    ui.say()
    ui.table(result.table())
    for prompt, before, after in result.samples[:3]:
        show_sample(ui.say, {"prompt": prompt, "before": before, "after": after})
    ui.say()
    for line in result.run.verdict:
        ui.say(line)
    ui.say()
    ui.say(
        f"{result.seconds:.0f} s on {result.backend} (a 1024² matrix product takes "
        f"{result.calibration * 1000:.0f} ms here); curves in {result.picture}"
    )


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "quickstart", QuickstartConfig, defaults=quickstart_defaults())(quickstart)
