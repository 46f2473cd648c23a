"""`fpo sae list`: which autoencoders are published for a model."""

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import SaeListConfig


@command("sae list")
def sae_list(config: SaeListConfig, ui: Ui) -> "fpo.PublishedSaes":
    """Show published autoencoders that fit a model, the recommended one first, then by fitness.

    Pass a source to `fpo convert sae`. Fit is what was trained on the model itself, on its residual
    stream, deep, with about 16,384 features of which about 100 fire. Recommended is the fittest of
    the residual stream that reads what the trained blocks write. With --json, all are listed.
    """
    result = ui.run(fpo.list_saes, config)
    ui.table(result.table(), numbers=False)
    return result
