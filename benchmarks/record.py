"""Result files: what a benchmark measured, with its command, versions and hardware."""

import contextlib
import json
import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(os.environ.get("BENCH_RESULTS", ROOT / "benchmarks" / "results"))
PACKAGES = (
    *("numpy", "safetensors", "tokenizers", "transformers"),
    *("torch", "triton", "peft", "trl"),
    *("mlx", "mlx-lm", "mlx-lm-lora"),
)


def write_result(name: str, values: dict[str, Any]) -> None:
    """Write results/<name>.json: the values, after what they were measured with."""
    text = json.dumps(measured_with() | values, indent=2, ensure_ascii=False) + "\n"
    (RESULTS / f"{name}.json").write_text(text, encoding="utf-8")


def measured_with() -> dict[str, Any]:
    """This command, versions and hardware."""
    return {"command": _command(), "versions": versions(), "hardware": hardware()}


def read_result(name: str) -> dict[str, Any]:
    """results/<name>.json; empty where there is none."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def run_json(command: list[str], environment: dict[str, str] | None = None) -> Any:
    """The JSON that a program prints; SystemExit with its errors if it fails."""
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if ran.returncode:
        raise SystemExit(f"{shlex.join(command[:4])} failed:\n{ran.stderr[-3000:]}")
    return json.loads(ran.stdout)


def versions() -> dict[str, str]:
    """Versions of the measured packages that this interpreter has."""
    installed = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            installed[package] = version(package)
    return installed


def hardware() -> dict[str, Any]:
    """The machine, and how busy it is."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "load": os.getloadavg(),
        "python": platform.python_version(),
    }


def _command() -> str:
    """The command line, without paths of this machine."""
    words = [word for word in sys.argv[1:] if not word.startswith("/")]
    words = [word for word in words if word not in ("--python", "--models", "--cache")]
    program = Path(sys.argv[0])
    name = program.parent.name if program.stem == "__main__" else program.stem
    return shlex.join(["python", "-m", f"benchmarks.{name}", *words])
