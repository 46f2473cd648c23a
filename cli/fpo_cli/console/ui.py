"""What a command works with: its output, and a way to run a workflow that shows what happens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from fpo_cli.console.output import Output

if TYPE_CHECKING:
    from fpo_cli.console.progress import ProgressDisplay

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Ui(Output):
    """Output that runs workflows too."""

    def progress(self) -> "ProgressDisplay":
        """A sink that shows events as they happen, within a `with`."""
        from fpo_cli.console.progress import ProgressDisplay

        return ProgressDisplay(self)

    def run(
        self,
        workflow: Callable[..., ResultT],
        config: Any,
        *,
        stoppable: bool = False,
        **options: Any,
    ) -> ResultT:
        """What a workflow returns, its progress shown; Ctrl-C and SIGTERM stop a `stoppable` one
        between two steps.
        """
        from fpo_cli.console.signals import StopSignals
        from fpo_core.events import fan_out

        with self.progress() as display, StopSignals(self) as signals:
            if stoppable:
                options |= {"sink": fan_out(display, signals), "stop": signals.asked}
            return workflow(config, **{"sink": display} | options)
