"""The methods beside FPO on the quickstart's world, five seeds: `python -m benchmarks.related`.

Parts: links, strength, goals; `--only` runs one and keeps the others' results.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.record import read_result, write_result
from benchmarks.related import report
from benchmarks.related.goals import goals
from benchmarks.related.losses import links, strength
from benchmarks.related.runs import SEEDS, World

PARTS: dict[str, Callable[[World], Iterator[dict[str, Any]]]] = {
    "links": links,
    "strength": strength,
    "goals": goals,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS)
    only = parser.parse_args().only
    world = World()
    for name in [only] if only else PARTS:
        began = time.process_time()
        for values in PARTS[name](
            world
        ):  # after each case: a run that is stopped keeps those before
            values["cpu_seconds"] = time.process_time() - began
            parts = read_result("related").get("parts", {}) | {name: values}
            write_result("related", {"seeds": SEEDS, "parts": parts})
    report.write()


if __name__ == "__main__":
    main()
