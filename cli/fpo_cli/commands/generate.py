"""`fpo generate`: completions of a prompt."""

import dataclasses
import sys
from typing import Any

import typer

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import GenerateConfig


def generate(config: GenerateConfig, ui: Ui) -> dict[str, Any]:
    """Let a model answer a prompt, with or without an adapter.

    The prompt is a user message in the tokenizer's own chat template, where it has one.
    """
    if config.prompt == "-":
        # The newline that echo and editors end a text with is not part of the question.
        config = dataclasses.replace(config, prompt=sys.stdin.read().removesuffix("\n"))
    result = fpo.generate(config)
    for i, text in enumerate(result.texts):
        if i:
            ui.say("", None)
        ui.say(text)
    return result.to_mapping()


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "generate", GenerateConfig, arguments=())(generate)
