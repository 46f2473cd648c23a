"""`fpo convert adapter`: adapters between PEFT and mlx-lm."""

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import ConvertAdapterConfig


@command("convert adapter", arguments=("source",))
def convert_adapter(config: ConvertAdapterConfig, ui: Ui) -> "fpo.ConvertedAdapter":
    """Convert an adapter of PEFT's or mlx-lm's into a folder that the other, or both, open.

    LoRA, DoRA, rsLoRA and ranks or strengths per module; what only one library has is refused.
    """
    result = ui.run(fpo.convert_adapter, config)
    report = result.report
    ui.say(
        f"{report.out}: {report.fine_tune_type}, rank {report.rank}, scale {report.scale:g}, "
        f"{len(report.blocks)} blocks, {', '.join(report.modules)}"
    )
    return result
