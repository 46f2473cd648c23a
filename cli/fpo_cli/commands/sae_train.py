"""`fpo sae train`: an autoencoder of any model, from its own activations."""

from typing import Any

import typer

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.display import stoppable_progress
from fpo_cli.console.ui import Ui
from fpo_core.config import SaeTrainConfig


def sae_train(config: SaeTrainConfig, ui: Ui) -> dict[str, Any]:
    """Train a sparse autoencoder of a model on your pairs and texts.

    Says first what it will take (--dry-run stops there). The result is a file for `fpo train
    --sae`, measured on held-out texts: how much it explains, and what the model itself loses by it.

    Ctrl-C ends the step, saves a checkpoint and stops; the same command with --resume goes on.

    Several processes share the work: `torchrun --nproc-per-node N -m fpo_cli sae train …` on torch,
    `mlx.launch -n N python -m fpo_cli sae train …` on MLX.
    """
    with stoppable_progress(ui) as (sink, stop):
        if config.dry_run:
            return fpo.forecast_sae(config, sink=sink).to_mapping()
        result = fpo.train_sae(config, sink=sink, stop=stop)
    table = result.table()
    ui.table(table)
    for line in table.below:
        ui.say(line)
    return result.to_mapping()


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "train", SaeTrainConfig, shared=True)(sae_train)
