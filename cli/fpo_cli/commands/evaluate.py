"""`fpo eval`: how a model stands on held-out pairs, beside the one it came from."""

from typing import Any

import typer

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.display import progress
from fpo_cli.console.samples import show_samples
from fpo_cli.console.ui import Ui
from fpo_core.config import EvalConfig


def evaluate(config: EvalConfig, ui: Ui) -> dict[str, Any]:
    """Measure a model on held-out pairs, texts and its own samples.

    With --adapter, the adapted model is compared with --model under it, or with that under
    --base-adapter. A whole --model is compared with --base. Alone, only the model's own numbers are
    taken.
    """
    with progress(ui) as sink:
        result = fpo.evaluate(config, sink=sink)
    table = result.table()
    ui.table(table)
    show_samples(ui.say, result.metrics.get("samples", ()))
    for line in table.below:
        ui.say(line)
    return result.to_mapping()


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "eval", EvalConfig)(evaluate)
