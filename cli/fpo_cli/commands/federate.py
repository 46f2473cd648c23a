"""`fpo federate`: one model aligned on the pairs of several clients."""

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config.federated import FederateConfig


@command("federate")
def federate(config: FederateConfig, ui: Ui) -> "fpo.Federation":
    """Align one model on the pairs of several simulated clients, which exchange adapters alone.

    Runs on Flower, a client after another on this machine; docs/federated.md says how the same apps
    run on machines of their own. Stopped at any point, the same command with --resume goes on.
    """
    result = ui.run(fpo.federate, config)
    for name, values in result.clients.items():
        where = "held-out" if values["held_out"] else "training"
        ui.say(f"{name}: accuracy {values['accuracy']:.3f} on {values['pairs']:.0f} {where} pairs")
    ui.say(
        f"{len(result.rounds)} rounds, {result.bytes_sent / 2**20:.2f} MiB sent; mixture "
        f"{result.mixture:.3f}, worst {result.worst}; adapter in {result.output / 'adapter'}"
    )
    return result
