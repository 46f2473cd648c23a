"""`fpo sae info`: what an autoencoder is."""

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import SaeInfoConfig


@command("sae info", arguments=("file",))
def sae_info(config: SaeInfoConfig, ui: Ui) -> "fpo.SaeInfo":
    """Show what an autoencoder made by `fpo convert sae` is, and where it came from."""
    result = ui.run(fpo.sae_info, config)
    width = max(map(len, result.values))
    for name, value in result.table().rows:
        ui.say(f"{name:<{width}}  {value}")
    return result
