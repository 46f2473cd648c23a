"""`fpo fuse`: an adapter merged into its model."""

from typing import Any

import typer

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.display import progress
from fpo_cli.console.ui import Ui
from fpo_core.config import FuseConfig


def fuse(config: FuseConfig, ui: Ui) -> dict[str, Any]:
    """Merge an adapter into its model, for transformers and mlx-lm alike.

    The result is kept only if its logits on a probe are those of model and adapter. A base that
    mlx-lm quantised is dequantised.
    """
    with progress(ui) as sink:
        result = fpo.fuse(config, sink=sink)
    quantised = ", dequantised" if result.dequantised else ""
    ui.say(
        f"{result.out}: {', '.join(result.dtypes)}{quantised}, {result.bytes / 2**20:.1f} MiB; "
        f"logits within {result.check.largest:.1e} of the adapter's, which moves its base by "
        f"{result.check.moved:.1e}"
    )
    return result.to_mapping()


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "fuse", FuseConfig)(fuse)
