"""`fpo data augment`: scored pairs as goal-conditioned rows."""

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import AugmentConfig


@command("data augment")
def data_augment(config: AugmentConfig, ui: Ui) -> "fpo.AugmentedData":
    """Write each scored pair as two rows that ask for the score of one side and of the other.

    Reward-augmented data (arXiv 2410.08067) as described second-hand.
    """
    result = ui.run(fpo.augment_data, config)
    for name, split in result.splits.items():
        ui.say(
            f"{name}: {split.rows} rows of {split.pairs} pairs; {split.tied} tied and "
            f"{split.unscored} without scores left out; of {split.contradicted} the rejected side "
            "has the higher score"
        )
    ui.say(f"train on it with fpo train --data {result.out}; ask with --goal")
    return result
