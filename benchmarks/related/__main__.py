"""The methods beside FPO on the quickstart's world, five seeds: `python -m benchmarks.related`.

Cases that the result holds are not run again: delete them to measure anew. `--only` runs one part.
"""

import argparse
import time
from collections.abc import Callable

from benchmarks.record import read_result, write_result
from benchmarks.related import report
from benchmarks.related.degrees import degrees
from benchmarks.related.goals import goals
from benchmarks.related.losses import links, strength
from benchmarks.related.runs import SEEDS, Cases, World

PARTS: dict[str, Callable[[World], Cases]] = {
    "links": links,
    "strength": strength,
    "goals": goals,
    "degrees": degrees,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS)
    only = parser.parse_args().only
    world = World()
    for name in [only] if only else PARTS:
        for case, measure in PARTS[name](world).items():
            parts = read_result("related").get("parts", {})
            done = parts.setdefault(name, {})
            if case in done:
                continue
            began = time.process_time()
            done[case] = measure()
            print(name, case, done[case], flush=True)
            spent = done.get("cpu_seconds", 0.0) + time.process_time() - began
            write_result(
                "related", {"seeds": SEEDS, "parts": parts | {name: done | {"cpu_seconds": spent}}}
            )
    report.write()


if __name__ == "__main__":
    main()
