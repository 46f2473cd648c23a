"""Greedy answers before and after, for people."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fpo_core.io.foreign_text import one_line

_SHOWN = 3
"""Most answers of each kind; those that a run made wrong come first."""
_MARKS = {True: "✓ ", False: "✗ ", None: ""}
Say = Callable[[str, str], None]
"""Prints a line in a style: `Ui.say` for results, `Ui.note` for remarks."""


def show_samples(say: Say, samples: Sequence[Mapping[str, Any]]) -> None:
    """A few of the `samples` of `fpo.TrainingRun.metrics`: held-out prompts, general questions."""
    for kind in ("held-out", "general"):
        of_kind = [sample for sample in samples if sample["kind"] == kind]
        of_kind.sort(key=lambda s: bool(s.get("right_after")) - bool(s.get("right_before")))
        for sample in of_kind[:_SHOWN]:
            show_sample(say, sample)


def show_sample(say: Say, sample: Mapping[str, Any]) -> None:
    """One prompt and its answers."""
    say("", "")
    say(f"prompt  {one_line(sample['prompt'])}", "bold")
    for side, style in (("before", ""), ("after", "green")):
        if side in sample:
            say(f"{side:8}{_MARKS[sample.get(f'right_{side}')]}{one_line(sample[side])}", style)
