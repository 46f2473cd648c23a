"""`fpo data inspect`: what the model sees of the pairs."""

from typing import Any

import typer

from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import DataConfig, InspectConfig
from fpo_core.errors import DataError


def inspect_data(config: InspectConfig, ui: Ui) -> dict[str, Any]:
    """Show tokens of pairs with prompt, completion and padding marked, and count all rows.

    Prompt tokens are cyan, the completion's, which are scored, green, padding grey.
    """
    from fpo_cli.console.token_rows import render
    from fpo_core.data.inspect import inspect_rows
    from fpo_core.data.load import load_data
    from fpo_core.data.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(config.model, config.revision, config.trust_remote_code)
    data = load_data(config.only(DataConfig), tokenizer, config.seed)
    split = data.train if config.split == "train" else data.valid
    if split is None:
        raise DataError(f"{config.data} has no validation pairs: give --valid-fraction")
    if config.start >= len(split):
        raise DataError(f"start is {config.start}, but there are {len(split)} pairs, from 0")
    rows = inspect_rows(split, tokenizer, config.rows, config.start)
    render(rows, ui.out)
    for line in data.report.lines():
        ui.say(line)
    return {
        "command": "data inspect",
        "report": data.report.to_mapping(),
        "split": config.split,
        "rows": [row.to_mapping() for row in rows],
    }


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    group = typer.Typer(name="data", help="Look at preference data.", no_args_is_help=True)
    command(group, "inspect", InspectConfig)(inspect_data)
    app.add_typer(group)
