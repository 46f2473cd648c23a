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
from functools import partial
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "convert"), str(ROOT / "cli")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.fast_blas import load_fast_blas  # noqa: E402

load_fast_blas()

from benchmarks.integrity.children import End, ended  # noqa: E402
from benchmarks.integrity.commands import Inputs  # noqa: E402
from benchmarks.integrity.kinds import KINDS, Kind  # noqa: E402
from benchmarks.integrity.mutations import damage  # noqa: E402
from benchmarks.integrity.runs import kills, pairs  # noqa: E402

FAULTS = ("silent", "traceback", "hang")
_EXAMPLES = 5


def outcome(end: End, sound: dict[str, Any]) -> tuple[str, str]:
    """The class of an end, and what to remember of it."""
    if end.hang or end.traceback is not None:
        return ("hang", "") if end.hang else ("traceback", end.traceback or "")
    if end.refused is not None:
        return "traceback" if "\n" in end.refused else "refused", end.refused
    same = {name: end.value[name] == sound[name] for name in ("digest", "fingerprint")}
    if same["digest"]:
        return "right", ""
    if end.value["told"]:
        return "told", end.value["told"][0]
    return "silent" if same["fingerprint"] else "noticed", end.value["digest"]


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
        name, words = outcome(ended(partial(kind.read, place), answer), expected.value)
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


def total_of(measured: dict[str, Any]) -> Counter[str]:
    """Counts over all kinds."""
    totals: Counter[str] = Counter()
    for counts in measured.values():
        totals.update({k: v for k, v in counts.items() if k not in ("examples", "seconds")})
    return totals


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Everything that was asked for, and how many faults there were."""
    result: dict[str, Any] = {}
    faults = 0
    if args.mutations:
        by_kind = mutations(args.mutations, args.kind or list(KINDS), args.seed)
        totals = total_of(by_kind)
        result["mutations"] = {"total": totals.total(), **totals, "by_kind": by_kind}
        faults += sum(totals[name] for name in FAULTS)
    with tempfile.TemporaryDirectory() as folder:
        inputs = Inputs(Path(folder) / "inputs")
        if args.kills or args.pairs:
            inputs.make()
        if args.kills:
            by_command = kills(args.kills, inputs, Path(folder) / "kills", args.seed)
            count = sum(each["kills"] for each in by_command.values())
            result["kills"] = {"total": count, "by_command": by_command}
            faults += sum(len(each["wrong"]) for each in by_command.values())
        if args.pairs:
            by_pair = pairs(args.pairs, inputs, Path(folder) / "pairs", args.seed)
            totals = total_of(by_pair)
            result["pairs"] = {"runs": totals.total(), **totals, "by_pair": by_pair}
            faults += sum(n for name, n in totals.items() if name not in ("right", "refused"))
    return result, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    for library in ("peft", "mlx_lm", "fpo_torch.policy", "fpo_mlx.policy", "fpo_cli.main"):
        __import__(library)
    measured, faults = measure(args)
    result = {
        "command": "python benchmarks/faults.py " + " ".join(sys.argv[1:]),
        "faults": faults,
        **measured,
        "versions": {name: version(name) for name in ("torch", "mlx", "safetensors", "numpy")},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
    print(f"{faults} faults")
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
