"""`fpo quickstart`: the whole road on the world that ships with the package."""

import fpo
from fpo.quickstart_settings import quickstart_defaults
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import QuickstartConfig
from fpo_core.io.foreign_text import one_line


@command("quickstart", defaults=quickstart_defaults())
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
        ui.say()
        ui.say(f"prompt  {one_line(prompt)}", "bold")
        ui.say(f"before  {one_line(before)}")
        ui.say(f"after   {one_line(after)}", "green")
    ui.say()
    for line in result.run.verdict:
        ui.say(line)
    ui.say()
    ui.say(
        f"{result.seconds:.0f} s on {result.backend} (a 1024² matrix product takes "
        f"{result.calibration * 1000:.0f} ms here); curves in {result.picture}"
    )
