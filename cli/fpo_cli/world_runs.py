"""Runs of `fpo train` on the quickstart's world: its files, its settings, its judge."""

from pathlib import Path
from typing import Any

from fpo_cli.commands.quickstart import SETTINGS
from fpo_cli.options import read_yaml
from fpo_cli.world import assets, score


def world_settings(output: Path) -> dict[str, Any]:
    """quickstart.yaml on the world's files, with what is made of them under `output`."""
    world = assets()
    places = {
        "model": str(world.model),
        "data": str(world.pairs),
        "text": str(world.unrelated),
        "sae": str(output / "sae.safetensors"),
        "cache": str(output / "cache"),
    }
    return read_yaml(SETTINGS) | places


def place_assets(output: Path) -> None:
    """Convert the world's autoencoder to where `world_settings` has it."""
    from fpo_convert.sae import convert_sae

    convert_sae(assets().sae, output / "sae.safetensors")


def judge(prompt: str, completion: str) -> dict[str, float]:
    """The oracle's scores of a completion; `preferred` is what the shipped pairs prefer."""
    found = score(prompt, completion)
    return vars(found) | {"preferred": found.preferred}
