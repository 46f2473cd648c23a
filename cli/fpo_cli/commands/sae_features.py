"""`fpo sae features`: which features tell two sets of texts apart."""

from typing import Any

import typer

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.display import progress
from fpo_cli.console.ui import Ui
from fpo_core.config import SaeFeaturesConfig


def sae_features(config: SaeFeaturesConfig, ui: Ui) -> dict[str, Any]:
    """Rank features by how much more they fire on one set of texts than on another.

    The difference is that of mean features. With --out, the first --top of them become a file for
    `fpo train --feature-weights`, whose D compares just these.
    """
    with progress(ui) as sink:
        result = fpo.rank_features(config, sink=sink)
    ui.table(result.table())
    if result.out is not None:
        ui.say(f"{result.out}: {len(result.features)} features of weight {config.weight:g}")
    if result.report is not None:
        ui.say(f"report: {result.report}")
    return result.to_mapping()


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "features", SaeFeaturesConfig)(sae_features)
