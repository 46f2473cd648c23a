"""`fpo data inspect`: what the model sees of the pairs."""

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import InspectConfig


@command("data inspect")
def data_inspect(config: InspectConfig, ui: Ui) -> "fpo.DataInspection":
    """Show tokens of pairs with prompt, completion and padding marked, and count all rows.

    Prompt tokens are cyan, the completion's, which are scored, green, padding grey.
    """
    from fpo_cli.console.token_rows import render

    result = ui.run(fpo.inspect_data, config)
    render(result.rows, ui.out)
    for line in result.report.lines():
        ui.say(line)
    return result
