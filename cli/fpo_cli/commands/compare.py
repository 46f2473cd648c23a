"""`fpo compare`: objectives, or any settings, side by side."""

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import CompareConfig


@command("compare")
def compare(config: CompareConfig, ui: Ui) -> "fpo.ComparisonResult":
    """Train objectives, or any grid over settings, from one stored reference, and compare them.

    Every run has the same seeds and batches. Writes compare.md, .csv, .json and .png: accuracy,
    diversity, drift, time and memory, with their spread over seeds. Stopped at any point, the same
    command goes on: finished runs are read, a begun one resumes.
    """
    result = ui.run(fpo.compare, config, stoppable=True)
    show_comparison(ui, result)
    return result


def show_comparison(ui: Ui, result: "fpo.ComparisonResult") -> None:
    """The table as Markdown, and where the rest lies."""
    text = result.output / "compare.md"
    ui.say(text.read_text(encoding="utf-8"))
    ui.say(
        f"{result.cost['seconds']:.0f} s, of them {result.cost['step_seconds']:.0f} s in steps of "
        f"all runs; tables and curves in {text}, .csv, .json and .png"
    )
    if result.report is not None:
        ui.say(f"report: {result.report}")
