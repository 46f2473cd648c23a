"""`fpo quickstart`: the whole road on the world that ships with the package."""

import fpo
from fpo.quickstart_settings import quickstart_defaults
from fpo_cli.console.command import command
from fpo_cli.console.samples import show_sample
from fpo_cli.console.ui import Ui
from fpo_core.config import QuickstartConfig


@command("quickstart", defaults=quickstart_defaults)
def quickstart(config: QuickstartConfig, ui: Ui) -> "fpo.QuickstartRun":
    """Align the embedded tiny model with FPO, end to end, in about a minute.

    Converts the world's autoencoder, builds the reference store, trains, and shows the model
    before and after. Needs no network. Its settings are those of `fpo train`, in quickstart.yaml.
    """
    result = ui.run(fpo.quickstart, config, stoppable=True)
    show_first_run(ui, result)
    return result


def show_first_run(ui: Ui, result: "fpo.QuickstartRun") -> None:
    """Measurements and some samples before and after, and the verdict."""
    ui.say()
    if result.run.report is not None:
        ui.say(f"report: {result.run.report} (open it in a browser)", "bold")
        ui.say()
    ui.table(result.table())
    for prompt, before, after in result.samples[:3]:
        show_sample(ui.say, {"prompt": prompt, "before": before, "after": after})
    ui.say()
    for line in result.run.verdict:
        ui.say(line)
    ui.say()
    ui.say(
        f"{result.seconds:.0f} s on {result.backend} (a 1024² matrix product takes "
        f"{result.calibration * 1000:.0f} ms here); curves in {result.picture}"
    )
