"""`fpo fuse`: an adapter merged into its model."""

from typing import Any

import typer

from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import FuseConfig


def fuse(config: FuseConfig, ui: Ui) -> dict[str, Any]:
    """Merge an adapter into its model, for transformers and mlx-lm alike.

    The result is kept only if its logits on a probe are those of model and adapter. A base that
    mlx-lm quantised is dequantised.
    """
    from fpo.merging import run_fuse

    return {"command": "fuse"} | run_fuse(config, ui)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "fuse", FuseConfig)(fuse)
