"""`fpo sae check`: how well an autoencoder fits a model."""

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import SaeCheckConfig


@command("sae check", arguments=("sae",))
def sae_check(config: SaeCheckConfig, ui: Ui) -> "fpo.SaeFit":
    """Measure how well an autoencoder explains a model on your data, and say whether it fits.

    The first pairs are read twice: as raw text, and under the model's chat template.
    """
    result = ui.run(fpo.check_sae, config)
    table = result.table()
    ui.say(f"{result.sae} at {result.hook} of {result.model}")
    ui.table(table)
    for line in table.below:
        ui.say(line)
    return result
