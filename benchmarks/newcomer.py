"""A newcomer's first hour by the README alone: from a clone to an aligned SmolLM2, on own pairs.

Run: python -m benchmarks.newcomer [--keep FOLDER], where an interrupted one goes on

Each command runs on a pseudo-terminal. Of each are recorded its seconds, on the wall and of the
processors, and the longest time without a sign of life there. Where others use the machine, the
processors' time says what the command needs, the wall's how long it waited. What the terminal
showed at the end becomes docs/first-hour.svg.
"""

import argparse
import fcntl
import json
import os
import pty
import select
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from benchmarks.own_pairs import write_own_pairs
from benchmarks.record import ROOT, write_result
from tests.cli.terminal import Screen

WIDTH, HEIGHT = 100, 40
PROMPT = "How do I boil an egg?"
STEPS = {
    "install": "git clone --quiet {root} fpo-mlx && cd fpo-mlx && make .venv/.installed",
    "model": "python examples/smollm2/get.py smollm2",
    "autoencoder": "fpo convert sae examples/smollm2/sae --out sae.safetensors",
    "look": "fpo data inspect --model smollm2/model --data {pairs}",
    "before": "fpo generate --model smollm2/model --temperature 0 --prompt {prompt}",
    "train": "fpo train --model smollm2/model --data {pairs} --sae sae.safetensors --output run",
    "after": "fpo generate --model smollm2/model --adapter run --temperature 0 --prompt {prompt}",
}
Step = dict[str, Any]
SHOWN = ("before", "train", "after")
"""Steps that the picture has."""
TICK = os.sysconf("SC_CLK_TCK")


class Watched:
    """A command on a pseudo-terminal, and when it said something."""

    def __init__(self, command: str, folder: Path, environment: dict[str, str]) -> None:
        self.screen = Screen(WIDTH)
        leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
        self._process = subprocess.Popen(
            ["bash", "-c", command],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        os.close(follower)
        self._leader, self._last, self._begun = leader, 0.0, time.monotonic()
        self._cpu_last = 0.0
        self.silence = self.silence_cpu = self.cpu = 0.0

    def follow(self) -> int:
        """Read to the end; the exit status."""
        decoder, pending = "utf-8", b""
        while True:
            ready, _, _ = select.select([self._leader], [], [], 0.25)
            self.cpu = max(self.cpu, processor_seconds(self._process.pid))
            if not ready:
                if self._process.poll() is not None:
                    break
                continue
            try:
                data = os.read(self._leader, 65536)
            except OSError:
                break
            if not data:
                break
            self._heard()
            pending += data
            text = pending.decode(decoder, errors="ignore")
            pending = b"" if text.encode() == pending else pending[len(text.encode()) :]
            self.screen.feed(text)
        code = self._process.wait()
        self._heard()
        return code

    def _heard(self) -> None:
        now = time.monotonic() - self._begun
        self.silence = max(self.silence, now - self._last)
        self.silence_cpu = max(self.silence_cpu, self.cpu - self._cpu_last)
        self._last, self._cpu_last = now, self.cpu

    @property
    def seconds(self) -> float:
        """Seconds from its start to the last sign of life."""
        return self._last


def processor_seconds(root: int) -> float:
    """Processor time of a process, its ended children and those that still run."""
    total, parents, times = 0.0, {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(folder.name)
        parents[pid] = int(fields[1])
        times[pid] = sum(map(int, fields[11:15])) / TICK
    for pid, value in times.items():
        at = pid
        while at and at != root:
            at = parents.get(at, 0)
        total += value if at == root else 0.0
    return total


def run(name: str, folder: Path, environment: dict[str, str], words: dict[str, str]) -> Step:
    """What a step came to, or did in an earlier sitting in this folder."""
    record = folder / f"{name}.json"
    if record.is_file():
        return json.loads(record.read_text(encoding="utf-8"))
    inside = folder / "fpo-mlx"
    place = inside if inside.is_dir() else folder
    watched = Watched(STEPS[name].format(**words), place, environment)
    if code := watched.follow():
        raise SystemExit("\n".join(watched.screen.rows()[-30:]) + f"\n{name} ended with {code}")
    step = {
        "step": name,
        "command": STEPS[name],
        "seconds": round(watched.seconds, 1),
        "cpu_seconds": round(watched.cpu, 1),
        "silence": round(watched.silence, 2),
        "silence_cpu": round(watched.silence_cpu, 2),
        "load": os.getloadavg()[0],
        "rows": watched.screen.rows() if name in SHOWN else [],
    }
    record.write_text(json.dumps(step), encoding="utf-8")
    return step


def picture(steps: list[Step], words: dict[str, str], path: Path) -> None:
    """What the terminal showed, less progress that went by."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere)
        for step in steps:
            if step["step"] in SHOWN:
                console.print(Text(f"$ {step['command'].format(**words)}", "bold"))
                for row in step["rows"]:
                    console.print(Text(row), soft_wrap=True)
                console.print()
        path.write_text(console.export_svg(title="SmolLM2 on own pairs"), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="folder to work in, which stays")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        write_own_pairs(folder / "pairs.jsonl")
        words = {"root": str(ROOT), "pairs": "../pairs.jsonl", "prompt": shlex.quote(PROMPT)}
        inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        bin_folder = folder / "fpo-mlx" / ".venv" / "bin"
        environment = inherited | {
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "FPO_CACHE": str(folder / "cache"),
            "HF_HUB_OFFLINE": "1",
            "TERM": "xterm-256color",
        }
        steps = []
        for name in STEPS:
            steps.append(run(name, folder, environment, words))
            print(json.dumps(steps[-1] | {"rows": None}), file=sys.stderr, flush=True)
    picture(steps, words, ROOT / "docs" / "first-hour.svg")
    summary = {
        "minutes": sum(step["seconds"] for step in steps) / 60,
        "cpu_minutes": sum(step["cpu_seconds"] for step in steps) / 60,
        "longest_silence": max(step["silence"] for step in steps),
        "longest_silence_cpu": max(step["silence_cpu"] for step in steps),
    }
    write_result("newcomer", {"summary": summary, "steps": steps})
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
