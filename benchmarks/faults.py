"""Damage files, kill processes, run two at once, and count what comes of it.

    python benchmarks/faults.py [--mutations 5000] [--kills 500] [--pairs 20] [--kind NAME]
                                [--command NAME]
                                [--out benchmarks/results/faults.json]

Mutations: each damages one file at random and has the program's own reader read it in a forked
child. `right` is the same as before; `refused` one line of error; `told` something else with a
warning, such as the checkpoint before; `noticed` an input without a hash of its own, read as
another, whose fingerprint in stores and checkpoints is another too. `silent`, `traceback` and
`hang` (20 s of computing, or of waiting for what does not come) are faults.

Bar: 0 faults, each kill followed by the same end bit for bit, leftovers of at most one process, and
each of two runs at once right or refused in one line.

`--out` is written after every kind, command and pair. Started again with the same numbers, seed and
commit, it goes on after the last of them.
"""

import argparse
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
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

from benchmarks.integrity.children import End, computed_by_children, ended  # noqa: E402
from benchmarks.integrity.commands import COMMANDS, PAIRS, Inputs  # noqa: E402
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
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
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
    shutil.rmtree(folder)
    return {**counts, "examples": {name: examples[name] for name in FAULTS if examples.get(name)}}


def _copy(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(source, target))


@dataclass
class Record:
    """The result so far, kept in a file."""

    out: Path | None
    settings: dict[str, Any]
    parts: dict[str, dict[str, Any]]

    @classmethod
    def begin(cls, out: Path | None, settings: dict[str, Any]) -> "Record":
        """What `out` holds of the same settings; empty else."""
        parts: dict[str, dict[str, Any]] = {"mutations": {}, "kills": {}, "pairs": {}}
        if out is not None and out.exists():
            before = json.loads(out.read_text())
            if {name: before.get(name) for name in settings} == settings:
                parts = {name: before[name]["by_name"] for name in parts}
        return cls(out, settings, parts)

    def add(self, part: str, name: str, measured: Callable[[], dict[str, Any]]) -> None:
        """Measure one thing, unless it is there, and save."""
        if name in self.parts[part]:
            return
        before = computed_by_children()
        found = measured()
        found["cpu_seconds"] = round(computed_by_children() - before, 1)
        self.parts[part][name] = found
        print(part, name, json.dumps(found), flush=True)
        if self.out is not None:
            self.out.write_text(json.dumps(self.summary(), indent=2) + "\n")

    def faults(self) -> int:
        """How many there are."""
        of_files, of_pairs = (_totals(self.parts[name]) for name in ("mutations", "pairs"))
        count = sum(of_files[name] for name in FAULTS)
        count += sum(len(found["wrong"]) for found in self.parts["kills"].values())
        return count + sum(n for name, n in of_pairs.items() if name not in ("right", "refused"))

    def summary(self) -> dict[str, Any]:
        """All of it, with totals."""
        of_files, of_pairs = (_totals(self.parts[name]) for name in ("mutations", "pairs"))
        killed = {"total": sum(found["kills"] for found in self.parts["kills"].values())}
        totals = {
            "mutations": {"total": of_files.total(), **of_files},
            "kills": killed,
            "pairs": {"runs": of_pairs.total(), **of_pairs},
        }
        return {
            "command": "python benchmarks/faults.py " + " ".join(sys.argv[1:]),
            "faults": self.faults(),
            **self.settings,
            **{name: totals[name] | {"by_name": found} for name, found in self.parts.items()},
            "versions": {name: version(name) for name in ("torch", "mlx", "safetensors", "numpy")},
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        }


def _totals(measured: dict[str, Any]) -> Counter[str]:
    """Counts over all kinds."""
    totals: Counter[str] = Counter()
    for counts in measured.values():
        totals.update({k: v for k, v in counts.items() if k not in ("examples", "cpu_seconds")})
    return totals


def measure(args: argparse.Namespace, record: Record, folder: Path) -> None:
    """Everything that was asked for."""
    for name in (args.kind or KINDS) if args.mutations else ():
        count = max(1, round(KINDS[name].count * args.mutations / 5000))
        record.add(
            "mutations", name, partial(mutate, KINDS[name], count, folder / "kind", args.seed)
        )
    inputs = Inputs(folder / "inputs")
    if args.kills or args.pairs:
        _load("peft", "mlx_lm", "fpo_torch.policy", "fpo_mlx.policy", "fpo_cli.main")
        inputs.make()
    names = args.command or list(COMMANDS)
    for name in names if args.kills else ():
        count = -(-args.kills // len(names))
        record.add("kills", name, partial(kills, name, count, inputs, folder / "killed", args.seed))
    for name in PAIRS if args.pairs else ():
        count = max(1, args.pairs // len(PAIRS))
        record.add("pairs", name, partial(pairs, name, count, inputs, folder / "pair", args.seed))


def _load(*modules: str) -> None:
    """Load modules before processes are forked, which then need not."""
    for name in modules:
        importlib.import_module(name)


def _commit() -> str:
    """The commit of this tree, with a star where it was changed since."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=*"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return ran.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--command", choices=COMMANDS, action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    numbers = {name: getattr(args, name) for name in ("mutations", "kills", "pairs", "seed")}
    record = Record.begin(args.out, {"asked": numbers, "commit": _commit()})
    with tempfile.TemporaryDirectory() as folder:
        measure(args, record, Path(folder))
    print(f"{record.faults()} faults")
    sys.exit(1 if record.faults() else 0)


if __name__ == "__main__":
    main()
