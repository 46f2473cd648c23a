"""What a command passes to a workflow: a sink that shows events, and a way to ask for a stop."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fpo_cli.console.ui import Ui

if TYPE_CHECKING:
    from fpo.workflow import Stop
    from fpo_core.events import Sink


@contextmanager
def progress(ui: Ui) -> "Iterator[Sink]":
    """A sink that shows events as they happen."""
    from fpo_cli.console.progress import ProgressDisplay

    with ProgressDisplay(ui) as display:
        yield display


@contextmanager
def stoppable_progress(ui: Ui) -> "Iterator[tuple[Sink, Stop]]":
    """The same, and what a run asks between steps: whether Ctrl-C or SIGTERM came."""
    from fpo_cli.console.signals import StopSignals
    from fpo_core.events import fan_out

    with progress(ui) as display, StopSignals(ui) as signals:
        yield fan_out(display, signals), signals.asked
