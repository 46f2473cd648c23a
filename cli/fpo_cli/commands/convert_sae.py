"""`fpo convert sae`: autoencoders that others trained, and ours for SAELens."""

from typing import Any

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import ConvertConfig


@command("convert sae", arguments=("source",))
def convert_sae(config: ConvertConfig, ui: Ui) -> "fpo.ConvertedSae":
    """Convert a sparse autoencoder to the one file that the other commands read.

    The format is recognised; the options below state what a checkpoint leaves out or gets wrong.
    With --to sae-lens, SOURCE is such a file and --out a new folder that SAELens opens.
    """
    result = ui.run(fpo.convert_sae, config)
    report: Any = result.report
    size = f"{report.bytes / 2**20:.1f} MiB"
    if config.to == "sae-lens":
        files = " and ".join(report.files)
        ui.say(f"{report.out}: {files} for SAELens, {report.architecture}, float32, {size}")
        return result
    ui.say(
        f"{report.out}: {report.architecture}, d_in {report.d_in}, d_sae {report.d_sae}, "
        f"{report.hook or 'no hook named'}, {report.dtype}, {size}"
    )
    if report.relative_difference is not None:
        ui.say(f"self-check: equal to the format's formula within {report.relative_difference:.1e}")
    return result
