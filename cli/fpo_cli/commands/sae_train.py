"""`fpo sae train`: an autoencoder of any model, from its own activations."""

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import SaeTrainConfig


@command("sae train", shared=True)
def sae_train(config: SaeTrainConfig, ui: Ui) -> "fpo.Result":
    """Train a sparse autoencoder of a model on your pairs and texts.

    Says first what it will take (--dry-run stops there). The result is a file for `fpo train
    --sae`, measured on held-out texts: how much it explains, and what the model itself loses by it.

    Ctrl-C ends the step, saves a checkpoint and stops; the same command with --resume goes on.

    Several processes share the work: `torchrun --nproc-per-node N -m fpo_cli sae train …` on torch,
    `mlx.launch -n N python -m fpo_cli sae train …` on MLX.
    """
    if config.dry_run:
        return ui.run(fpo.forecast_sae, config)
    result = ui.run(fpo.train_sae, config, stoppable=True)
    table = result.table()
    ui.table(table)
    for line in table.below:
        ui.say(line)
    return result
