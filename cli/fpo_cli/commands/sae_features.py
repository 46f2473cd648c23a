"""`fpo sae features`: which features tell two sets of texts apart."""

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import SaeFeaturesConfig


@command("sae features")
def sae_features(config: SaeFeaturesConfig, ui: Ui) -> "fpo.FeatureRanking":
    """Rank features by how much more they fire on one set of texts than on another.

    The difference is that of mean features. With --out, the first --top of them become a file for
    `fpo train --feature-weights`, whose D compares just these.
    """
    result = ui.run(fpo.rank_features, config)
    ui.table(result.table())
    if result.out is not None:
        ui.say(f"{result.out}: {len(result.features)} features of weight {config.weight:g}")
    if result.report is not None:
        ui.say(f"report: {result.report}")
    return result
