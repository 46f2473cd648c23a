"""`fpo report`: the page of a run, or of several."""

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import ReportConfig


@command("report", arguments=("runs",))
def report(config: ReportConfig, ui: Ui) -> "fpo.Report":
    """Make one HTML file of what a run, or several, came to; it loads nothing, so send it on.

    Of a run: verdict, measurements, curves, held-out pairs token by token, samples, features that
    moved. Of several, or of a comparison: accuracy against KL, a table, the settings that differ.
    """
    result = ui.run(fpo.report, config)
    ui.say(f"{result.file}: {result.bytes / 2**20:.1f} MiB, to open in any browser")
    return result
