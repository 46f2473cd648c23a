"""`fpo eval`: how a model stands on held-out pairs, beside the one it came from."""

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.samples import show_samples
from fpo_cli.console.ui import Ui
from fpo_core.config import EvalConfig


@command("eval")
def evaluate(config: EvalConfig, ui: Ui) -> "fpo.EvaluationResult":
    """Measure a model on held-out pairs, texts and its own samples.

    With --adapter, the adapted model is compared with --model under it, or with that under
    --base-adapter. A whole --model is compared with --base. Alone, only the model's own numbers are
    taken.
    """
    result = ui.run(fpo.evaluate, config)
    table = result.table()
    ui.table(table)
    show_samples(ui.say, result.metrics.get("samples", ()))
    for line in table.below:
        ui.say(line)
    return result
