"""`fpo generate`: completions of a prompt."""

from typing import Any

import typer

from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import GenerateConfig


def generate(config: GenerateConfig, ui: Ui) -> dict[str, Any]:
    """Let a model answer a prompt, with or without an adapter.

    The prompt is a user message in the tokenizer's own chat template, where it has one.
    """
    from fpo.generation import complete

    result = complete(config)
    for i, completion in enumerate(result["completions"]):
        if i:
            ui.say("", None)
        ui.say(completion["text"])
    return {"command": "generate"} | result


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "generate", GenerateConfig, arguments=())(generate)
