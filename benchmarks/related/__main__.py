"""The methods beside FPO on the quickstart's world, five seeds: `python -m benchmarks.related`.

Parts: links, strength, goals; `--only` runs one and keeps the others' results.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

from benchmarks.record import read_result, write_result
from benchmarks.related.goals import goals
from benchmarks.related.losses import links, strength
from benchmarks.related.runs import SEEDS, STEPS, World

PARTS: dict[str, Callable[[World], dict[str, Any]]] = {
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
        values = PARTS[name](world)
        values["cpu_seconds"] = time.process_time() - began
        earlier = read_result("related").get("parts", {})
        write_result("related", {"seeds": SEEDS, "steps": STEPS, "parts": earlier | {name: values}})


if __name__ == "__main__":
    main()
