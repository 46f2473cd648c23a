"""The live line on terminals of several widths, and of one that changes."""

import pytest

from .terminal import Terminal

PROGRAM = """
import sys, threading, time
from fpo_cli.console import progress
from fpo_cli.console.ui import Ui
from fpo_core.events import Event
clock = 100.0
progress.time.monotonic = lambda: clock
values = {
    "loss": 0.4321, "fpo/raw_accuracy": 0.75, "rewards/accuracies": 1.0, "rewards/margins": 1.25,
    "fpo/d_rejected": 0.0125, "fpo/constraint_ratio": 0.13, "tokens_per_second": 1234.0,
    "peak_memory": 300 * 2**20, "steps": 1000,
}
with progress.ProgressDisplay(Ui()) as display:
    step = lambda n: display(Event("progress", n, {"label": "training", "done": n, "total": 1000}))
    display(Event("note", 0, {"message": "measuring the start"}))
    step(20)
    clock = 200.0
    display(Event("train", 120, values))
    for line in sys.stdin:
        exec(line)
"""
PICTURES = {
    40: "training 120/1000 ━━━━━━━━━━ 14:40 left",
    60: "training 120/1000 ━━━━━━━━━━━━━━━━ 14:40 left  loss 0.4321",
    80: "training 120/1000 ━━━━━━━━━━━━━━━━ 14:40 left  loss 0.4321, raw acc 0.750",
    100: "training 120/1000 ━━━━━━━━━━━━━━━━ 14:40 left  loss 0.4321, raw acc 0.750, "
    "reward acc 1.000",
    140: "training 120/1000 ━━━━━━━━━━━━━━━━ 14:40 left  loss 0.4321, raw acc 0.750, "
    "reward acc 1.000, margin 1.25, D rejected 0.0125",
}
"""100 steps in 100 s: 880 more take 14:40. Metrics go from the right, one by one."""


@pytest.mark.parametrize("width", PICTURES)
def test_step_and_time_left_survive_at_any_width(width: int) -> None:
    terminal = Terminal(PROGRAM, width)
    assert terminal.until(PICTURES[width])[1:] == [PICTURES[width]]
    terminal.type("\4")
    assert terminal.end() == ["measuring the start", PICTURES[width]]


@pytest.mark.parametrize("widths", [(140, 60), (140, 40), (60, 140), (100, 80, 60)])
def test_a_resize_leaves_no_litter(widths: tuple[int, ...]) -> None:
    """A line that was wrapped into two rows or four is taken away whole."""
    terminal = Terminal(PROGRAM, widths[0])
    terminal.until("120/1000")
    for width in widths[1:]:
        terminal.resize(width)
        while terminal.until("120/1000")[1:] != [PICTURES[width]]:
            terminal.read()
    terminal.type("\4")
    assert terminal.end() == ["measuring the start", PICTURES[widths[-1]]]


def test_what_is_said_meanwhile_goes_above_the_line() -> None:
    terminal = Terminal(PROGRAM, 80)
    terminal.until("120/1000")
    terminal.type('display(Event("warning", 120, {"message": "mind the gap"}))\n')
    rows = terminal.until("warning: mind the gap")
    assert rows[-1] == PICTURES[80]


def test_the_line_moves_with_every_step_and_shows_what_interrupts_it() -> None:
    terminal = Terminal(PROGRAM, 80)
    terminal.until("120/1000")
    terminal.type("step(121)\n")
    terminal.until("training 121/1000")
    terminal.type(
        'display(Event("progress", 121, {"label": "validation", "done": 1, "total": 2}))\n'
    )
    terminal.until("validation 1/2")
    terminal.type(
        'display(Event("progress", 121, {"label": "validation", "done": 2, "total": 2}))\n'
    )
    terminal.until("training 121/1000")


def test_a_silence_of_over_two_seconds_says_what_goes_on() -> None:
    terminal = Terminal(PROGRAM, 80)
    terminal.until("120/1000")
    terminal.type('display(Event("end", 120))\n')
    terminal.type('display(Event("note", 120, {"message": "measuring the end"}))\n')
    terminal.until("measuring the end")
    terminal.type("clock = 203.0\n")
    assert terminal.until("measuring the end 0:03")[-3:-1] == [PICTURES[80], "measuring the end"]
