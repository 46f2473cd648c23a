"""`fpo train`: phase 2 of FPO, with the reference store found, extended or built first."""

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.samples import show_samples
from fpo_cli.console.ui import Ui
from fpo_core.config import TrainConfig


@command("train", shared=True)
def train(config: TrainConfig, ui: Ui) -> "fpo.Result":
    """Align a model with FPO on preference pairs.

    Finds, checks, extends or builds the stored reference, trains, and measures start and end on
    held-out pairs. The result lies in --output, with the log, the best result and the checkpoints.

    Ctrl-C ends the step, saves a checkpoint and stops; after that, or after a crash, the same
    command with --resume goes on as if nothing had happened.

    Several processes share the batches of one run: `torchrun --nproc-per-node N -m fpo_cli train …`
    on torch, `mlx.launch -n N -- python -m fpo_cli train …` on MLX. They need one disk. With
    --shard, on torch, they share the model too.
    """
    if config.dry_run:
        return ui.run(fpo.preflight, config)
    result = ui.run(fpo.train, config, stoppable=True)
    show_samples(ui.note, result.metrics.get("samples", ()))
    for line in result.verdict:
        ui.say(line)
    if result.report is not None:
        ui.say(f"report: {result.report}")
    return result
