"""Compare objectives on SmolLM2-135M-Instruct: accuracy, KL, entropy, D, time and memory.

Run: python examples/smollm2/compare.py [--cache FOLDER] [--objectives fpo,dpo] [--seeds 0,1,2]
"""

from dataclasses import dataclass

import typer

import fpo
from fpo_cli.commands.compare import show_comparison
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_cli.main import main
from fpo_core.config import CompareConfig, DataConfig
from fpo_core.config.fields import like
from fpo_core.errors import ConfigError

OBJECTIVES = ("dpo", "dpo-norm", "simpo", "tdpo2", "fpo")


@dataclass(frozen=True, kw_only=True)
class SmolCompareConfig(CompareConfig):
    """Settings of this comparison."""

    output: str = like(CompareConfig, "output", default="fpo-smollm2-compare")
    objectives: tuple[str, ...] | None = like(CompareConfig, "objectives", default=OBJECTIVES)
    eval_pairs: int = like(CompareConfig, "eval_pairs", default=52)
    samples: int = like(CompareConfig, "samples", default=16)
    cache: str | None = like(
        DataConfig,
        "cache",
        help="Folder for the model; by default ~/.cache/fpo-mlx, or $FPO_CACHE.",
    )

    def check(self) -> None:
        """The example brings its own settings."""
        if self.settings is not None:
            raise ConfigError("settings is set, but this example has its own: use `fpo compare`")


@command("compare")
def compare_smollm2(config: SmolCompareConfig, ui: Ui) -> fpo.ComparisonResult:
    """Train objectives on pairs of moods from one stored reference, and compare them.

    Every run has the same seeds and batches. Stopped at any point, the same command goes on.
    """
    from example import smollm2_example

    example = smollm2_example(config.cache)
    result = ui.run(fpo.compare, config, stoppable=True, example=example)
    show_comparison(ui, result)
    return result


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
compare_smollm2.add_to(app)

if __name__ == "__main__":
    main(app, "compare.py")
