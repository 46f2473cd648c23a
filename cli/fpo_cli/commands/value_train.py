"""`fpo value train`: what reward a model's texts are expected to end with."""

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import ValueTrainConfig


@command("value train")
def value_train(config: ValueTrainConfig, ui: Ui) -> "fpo.TrainedValue":
    """Sample answers to a file of prompts, judge them, and learn to foretell their reward from
    every token.

    The result is for --value of `fpo generate`, `fpo sample` and `fpo eval`, which then prefer
    tokens that lead to a higher reward. Stopped while it samples, the same command goes on.
    """
    result = ui.run(fpo.train_value, config)
    ui.table(result.table())
    return result
