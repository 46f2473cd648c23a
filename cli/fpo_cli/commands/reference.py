"""`fpo reference`: phase 1 of FPO, the stored pass of the frozen model."""

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import ReferenceRunConfig


@command("reference", shared=True)
def reference(config: ReferenceRunConfig, ui: Ui) -> "fpo.StoredReference":
    """Run the frozen model once over all pairs, and store what it says.

    `fpo train` does this by itself where needed; a store made here can be shared between runs.
    Stopped at any point, the same command goes on from where it was. Without --reference the store
    lies in the cache, where train and eval find it.
    """
    store = ui.run(fpo.reference, config)
    ui.say(
        f"{store.reference}: {store.pairs} pairs, {store.new_pairs} of them new, "
        f"{store.bytes / 2**20:.1f} MiB"
    )
    return store
