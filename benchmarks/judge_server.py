"""The endpoint judge against a real model server: mlx_lm.server with a small model.

Chosen against rejected replies of preference pairs, in both orders. What counts is that the
server's replies and log-probabilities are read and kept, not that so small a model judges well.

Run: python -m benchmarks.judge_server --model FOLDER --pairs FILE [--count 8]
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fpo
from benchmarks.record import hardware, versions, write_result
from tests.ports import free_port


@contextlib.contextmanager
def serving(model: str) -> Iterator[str]:
    """The URL of mlx_lm.server on a free port of loopback."""
    port = free_port()
    command = [sys.executable, "-m", "mlx_lm.server", "--model", model, "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait()


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(1)
    raise SystemExit(f"mlx_lm.server ended with {server.returncode}")


def write_sides(pairs: Path, count: int, folder: Path) -> tuple[Path, Path]:
    """Chosen and rejected replies as two files of answers."""
    rows = [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()[:count]]
    files = []
    for side in ("chosen", "rejected"):
        answers = [{"prompt": _text(row["prompt"]), "completion": _text(row[side])} for row in rows]
        files.append(folder / f"{side}.jsonl")
        files[-1].write_text("".join(json.dumps(a) + "\n" for a in answers), encoding="utf-8")
    return files[0], files[1]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else value[-1]["content"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--count", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(args.model) as url:
        chosen, rejected = write_sides(args.pairs, args.count, Path(folder))
        options = {"answers": chosen, "baseline": rejected, "judge": url, "judge_model": args.model}
        options |= {"verdicts": Path(folder) / "v.jsonl", "judge_timeout": 600.0}
        options["judge_concurrency"] = 2
        calls = fpo.judge(**options, dry_run=True).cost
        began = time.perf_counter()
        result = fpo.judge(**options)
        seconds = time.perf_counter() - began
        left = fpo.judge(**options, dry_run=True).cost
        kept = [json.loads(line) for line in options["verdicts"].read_text().splitlines()]
    assert calls is not None
    assert left is not None
    values = {
        "server": "mlx_lm.server",
        "calls": calls.calls,
        "calls_left": left.calls,
        "replies": len(kept),
        "with_logprobs": sum(bool(row.get("letters")) for row in kept),
        "result": {
            k: v
            for k, v in result.to_mapping().items()
            if k not in ("answers", "baseline", "judge")
        },
        "seconds": seconds,
        "versions": versions(),
        "hardware": hardware(),
    }
    write_result("judge_server", values)
    print(json.dumps(values, indent=2))


if __name__ == "__main__":
    main()
