"""`fpo judge`: answers under a judge, and how often they win."""

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import WinRateConfig


@command("judge", arguments=("answers", "baseline"))
def judge(config: WinRateConfig, ui: Ui) -> "fpo.JudgedAnswers":
    """Judge the answers of a file, or how often they win against those of --baseline.

    Win rates stand as they are and controlled for length, with intervals over prompts. An endpoint
    sees each pair in both orders, and is never asked twice: stopped, the same command goes on.
    """
    result = ui.run(fpo.judge, config)
    ui.table(result.table())
    return result
