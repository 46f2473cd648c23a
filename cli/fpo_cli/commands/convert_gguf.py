"""`fpo convert gguf`: a merged model for llama.cpp."""

from typing import Any

import typer

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.display import progress
from fpo_cli.console.ui import Ui
from fpo_core.config import ConvertGgufConfig


def convert_gguf(config: ConvertGgufConfig, ui: Ui) -> dict[str, Any]:
    """Hand a merged model to llama.cpp's converter, or print the command that does.

    The converter is llama.cpp's convert_hf_to_gguf.py, in --llama-cpp, $LLAMA_CPP or on the PATH.
    """
    with progress(ui) as sink:
        result = fpo.convert_gguf(config, sink=sink)
    if result.converted:
        ui.say(f"{result.out}: {result.out.stat().st_size / 2**20:.1f} MiB for llama.cpp")
    else:
        ui.note("llama.cpp's converter is not here; where it is, this makes the file:")
        ui.say(result.command)
    return result.to_mapping()


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "gguf", ConvertGgufConfig, arguments=("source",))(convert_gguf)
