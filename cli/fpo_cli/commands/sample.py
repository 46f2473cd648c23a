"""`fpo sample`: preference pairs of a model's own answers."""

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import SampleConfig


@command("sample")
def sample(config: SampleConfig, ui: Ui) -> "fpo.SampledPairs":
    """Sample answers to a file of prompts, judge them, and write the best and worst of each as a
    pair.

    The pairs, with scores, are read by `fpo train` and `fpo data augment`. Stopped, the same
    command goes on, and judges nothing twice.
    """
    result = ui.run(fpo.sample, config)
    ui.table(result.table())
    return result
