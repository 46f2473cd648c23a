"""One of several processes: `forked`, or `tests.rings … -m tests.backends.process_worker`.

Its argument is a JSON object: settings of `runs.settings`, and under `script` what happens to whom.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from fpo.backends import join_group
from fpo.run_checks import writing_output
from fpo_core.backend.process_group import Group
from fpo_core.errors import FpoError
from fpo_core.events import Event
from tests.backends.runs import run_tiny, settings
from tests.fast_blas import load_fast_blas


def act(script: dict[str, Any], rank: int) -> Any:
    """A sink that kills, or tells to stop, the process `rank` of the script at its step."""

    def emit(event: Event) -> None:
        here = event.kind == "train" and event.step == script.get("step")
        if here and rank == script["rank"]:
            if "pid" in script:
                Path(script["pid"]).write_text(str(os.getpid()))
            os.kill(os.getpid(), getattr(signal, script["signal"]))

    return emit


def run(given: dict[str, Any], group: Group) -> Any:
    """Take part in a run: its result and the policy."""
    given = dict(given)
    script, store = given.pop("script", {}), Path(given.pop("store"))
    config = settings(Path(given.pop("model")), Path(given.pop("output")), **given)
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    with writing_output(config.output, group, config.process_timeout):
        return run_tiny(
            config,
            store,
            group=group,
            emit=act(script, group.rank),
            stop=lambda: heard[0] if heard else None,
        )


def main() -> None:
    """Take part in the run of the command line."""
    given = json.loads(sys.argv[1])
    load_fast_blas()
    group = join_group(given["backend"])
    try:
        run(given, group)
    except FpoError as error:
        sys.exit(f"process {group.rank}: {error}")


if __name__ == "__main__":
    main()
