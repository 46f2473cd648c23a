"""Damage files, kill processes, run two at once, and count what comes of it.

    python benchmarks/faults.py [--mutations 5000] [--kills 500] [--pairs 20] [--kind NAME]
                                [--out benchmarks/results/faults.json]

Mutations: each damages one file at random and has the program's own reader read it in a forked
child. `right` is the same as before; `refused` one line of error; `told` something else with a
warning, such as the checkpoint before; `noticed` an input without a hash of its own, read as
another, whose fingerprint in stores and checkpoints is another too. `silent`, `traceback` and
`hang` (20 s) are faults.

Bar: 0 faults, each kill followed by the same end bit for bit, leftovers of at most one process, and
each of two runs at once right or refused in one line.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "convert"), str(ROOT / "cli")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.integrity.children import End, ended  # noqa: E402
from benchmarks.integrity.kinds import KINDS, Kind  # noqa: E402
from benchmarks.integrity.mutations import damage  # noqa: E402

FAULTS = ("silent", "traceback", "hang")
_EXAMPLES = 5


def outcome(end: End, sound: dict[str, Any]) -> tuple[str, str]:
    """The class of an end, and what to remember of it."""
    if end.hang:
        return "hang", ""
    if end.traceback is not None:
        return "traceback", end.traceback
    if end.refused is not None:
        return ("traceback" if "\n" in end.refused else "refused"), end.refused
    if end.value["digest"] == sound["digest"]:
        return "right", ""
    if end.value["told"]:
        return "told", end.value["told"][0]
    if end.value["fingerprint"] != sound["fingerprint"]:
        return "noticed", ""
    return "silent", end.value["digest"]


def mutate(kind: Kind, count: int, folder: Path, seed: int) -> dict[str, Any]:
    """Damage a kind's files so many times; counts by outcome, and examples of faults."""
    sound, answer = folder / "sound", folder / "answer"
    assert ended(lambda: kind.make(sound), answer, 300).traceback is None
    expected = ended(lambda: kind.read(_copy(sound, folder / "copy")), answer, 300)
    assert expected.value is not None, expected
    counts: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    for number in range(count):
        chance = Random(f"{seed} {number}")
        place = _copy(sound, folder / "copy") if kind.copied else sound
        path = chance.choice(sorted(place.glob(kind.files)))
        undo = damage(path, chance)
        name, words = outcome(ended(lambda: kind.read(place), answer), expected.value)
        if not kind.copied:
            undo()
        counts[name] += 1
        if len(examples.setdefault(name, [])) < _EXAMPLES and name in FAULTS:
            examples[name].append(f"{number} {path.name}: {words}")
    return {**counts, "examples": {name: examples[name] for name in FAULTS if examples.get(name)}}


def _copy(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(source, target))


def mutations(total: int, names: list[str], seed: int) -> dict[str, Any]:
    """All kinds, each with its share of the total."""
    found = {}
    for name in names:
        kind, start = KINDS[name], time.monotonic()
        count = max(1, round(kind.count * total / 5000))
        with tempfile.TemporaryDirectory() as folder:
            found[name] = mutate(kind, count, Path(folder), seed)
        found[name]["seconds"] = round(time.monotonic() - start, 1)
        print(name, json.dumps(found[name]), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    names = args.kind or list(KINDS)
    for library in (
        "torch",
        "peft",
        "transformers",
        "mlx_lm",
        "fpo_torch.policy",
        "fpo_mlx.policy",
    ):
        __import__(library)
    measured = mutations(args.mutations, names, args.seed)
    totals: Counter[str] = Counter()
    for counts in measured.values():
        totals.update({k: v for k, v in counts.items() if k not in ("examples", "seconds")})
    result = {
        "command": "python benchmarks/faults.py " + " ".join(sys.argv[1:]),
        "mutations": {"total": sum(totals.values()), **totals, "by_kind": measured},
        "versions": {name: version(name) for name in ("torch", "mlx", "safetensors", "numpy")},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
    print(json.dumps({k: v for k, v in result["mutations"].items() if k != "by_kind"}))
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(1 if any(totals[name] for name in FAULTS) else 0)


if __name__ == "__main__":
    main()
