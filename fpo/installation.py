"""What is installed, what it can use, and whether it computes what it should."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fpo.backends import backend_module, missing_packages, select_backend
from fpo.device_selftest import SelfTest, self_test
from fpo.provenance import library_version
from fpo.results import Result, Table
from fpo.workflow import workflow
from fpo_core import __version__
from fpo_core.backend.precision import WORTH
from fpo_core.config import BackendConfig, DoctorConfig
from fpo_core.config.backends import BACKENDS
from fpo_core.data.cache import cache_root
from fpo_core.errors import BackendError
from fpo_core.events import Sink, note
from fpo_core.io.leftovers import leftovers, remove_leftovers
from fpo_core.io.memory import physical_memory

_ENOUGH = 0.9
"""Share of all threads' rate above which one thread is enough."""
LIBRARIES = ("transformers", "datasets", "tokenizers", "safetensors", "numpy", "huggingface-hub")


@dataclass(frozen=True)
class Installation(Result):
    """Backends, devices and versions of this machine."""

    facts: dict[str, Any]
    """Everything by name; `facts["backends"]` has an entry per backend."""
    self_tests: dict[str, SelfTest] = field(default_factory=dict)
    """By backend, where they were asked for."""

    def to_mapping(self) -> dict[str, Any]:
        """Facts and self-tests as JSON values."""
        reports = {name: test.to_mapping() for name, test in self.self_tests.items()}
        return self.facts | ({"self_test": reports} if reports else {})

    def table(self) -> Table:
        """The facts in sentences."""
        return Table((), (), self.lines())

    def lines(self) -> list[str]:
        """The facts for people, to be pasted into a bug report."""
        facts = self.facts
        memory = "" if facts["memory"] is None else f", {facts['memory'] / 2**30:.1f} GiB memory"
        lines = [
            f"fpo-mlx {facts['fpo']}, Python {facts['python']}, {facts['system']}, "
            f"{facts['cpus']} CPUs{memory}",
            "libraries: " + _listed(facts["versions"]),
        ]
        for name, backend in facts["backends"].items():
            lines += _backend_lines(name, backend)
        cache = facts["cache"]
        return [
            *lines,
            f"backend auto chooses: {facts['auto'] or 'nothing, no backend is installed'}",
            f"cache: {cache['folder']}, {cache['bytes'] / 2**20:.1f} MiB",
            *_leftover_lines(facts["leftovers"]),
            *(line for test in self.self_tests.values() for line in test.lines()),
        ]


@workflow(DoctorConfig)
def doctor(config: DoctorConfig, sink: Sink) -> Installation:
    """Which backends, devices and versions are here, and how to get what is missing.

    With `self_test`, each installed backend computes golden values, a gradient and three training
    steps on its device. Raises BackendError where `backend` names one that is not installed; a
    failed self-test raises nothing, look at `passed`.
    """
    wanted = BACKENDS if config.backend == "auto" else (config.backend,)
    # Absent when asked for is a mistake, absent under auto a fact to report.
    if config.backend != "auto":
        select_backend(BackendConfig(backend=config.backend))
    cache = cache_root(config.cache).parent
    backends = {}
    for name in wanted:
        note(sink, f"loading and timing {name}")
        backends[name] = _backend(name)
    usable = [name for name, facts in backends.items() if facts["installed"]]
    tests: dict[str, SelfTest] = {}
    for name in usable if config.self_test else ():
        note(sink, f"self-test of {name}")
        tests[name] = self_test(backend=name, device=config.device)
    return Installation(
        {
            "fpo": __version__,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "cpus": os.cpu_count(),
            "memory": physical_memory(),
            "versions": {name: library_version(name) for name in LIBRARIES},
            "backends": backends,
            "auto": _auto(),
            "cache": {"folder": str(cache), "bytes": _size(cache) if cache.is_dir() else 0},
            "leftovers": _leftovers(cache, remove=config.clean),
        },
        tests,
    )


def _leftovers(cache: Path, *, remove: bool) -> dict[str, Any]:
    """Temporaries of killed processes in the cache and the working folder, perhaps removed."""
    look = remove_leftovers if remove else leftovers
    remains = [*look(cache, deep=True), *look(Path.cwd())]
    paths = [str(leftover.path) for leftover in remains]
    return {"paths": paths, "bytes": sum(f.bytes for f in remains), "removed": remove}


def _auto() -> str | None:
    try:
        return select_backend(BackendConfig())
    except BackendError:
        return None


def _leftover_lines(facts: dict[str, Any]) -> list[str]:
    if not facts["paths"]:
        return []
    size = f"{facts['bytes'] / 2**20:.1f} MiB"
    if facts["removed"]:
        return [f"removed {size} that killed processes left"]
    what = f"killed processes left {size}, which clean removes:"
    return [what, *(f"  {path}" for path in facts["paths"])]


def _backend(name: str) -> dict[str, Any]:
    backend = BACKENDS[name]
    missing = missing_packages(name)
    facts: dict[str, Any] = {
        "installed": not missing,
        "versions": {library: library_version(library) for library in backend.libraries},
    }
    if missing:
        return facts | {"missing": missing, "install": backend.install}
    try:
        return facts | backend_module(name, "doctor").describe()
    except (ImportError, OSError) as error:  # installed, but its native library does not load
        reason = " ".join(str(error).split())
        return facts | {"installed": False, "broken": reason, "install": backend.install}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _backend_lines(name: str, backend: dict[str, Any]) -> list[str]:
    if not backend["installed"]:
        why = backend.get("broken") or "missing " + ", ".join(backend["missing"])
        return [f"{name}: not usable ({why}); get it with: {backend['install']}"]
    text = f"{name}: {_listed(backend['versions'])}; devices {', '.join(backend['devices'])}"
    if "gpu" in backend:
        text += f"; GPU {_listed(backend['gpu'])}"
    if "cpu_gflops" in backend:
        text += f"; CPU products at {backend['cpu_gflops']:.0f} GFLOPS"
    lines = [text, *(f"  {line}" for line in rate_lines(backend.get("cpu_rates", ())))]
    return [*lines, *([f"  {backend['note']}"] if "note" in backend else [])]


def rate_lines(rates: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a CPU multiplies by precision and threads, and what follows for settings."""
    if not rates:
        return []
    every = rates[-1]
    shown = [
        f"{name} " + ", ".join(f"{rate[name]:.3g}{_threads(rate['threads'])}" for rate in rates)
        for name in ("float32", "bfloat16")
    ]
    lines = [f"CPU products in GFLOPS: {'; '.join(shown)}"]
    if every["bfloat16"] >= WORTH * every["float32"]:
        lines.append("bfloat16 trains faster here: dtype auto takes it for models of some size")
    one, name = rates[0], max(("float32", "bfloat16"), key=lambda name: every[name])
    if len(rates) > 1 and one[name] >= _ENOUGH * every[name]:
        lines.append(
            f"one thread is as fast as {every['threads']} now: set OMP_NUM_THREADS=1 while other "
            "programs keep this machine busy"
        )
    return lines


def _threads(count: int | None) -> str:
    return "" if count is None else f" on {count} thread{'s' if count > 1 else ''}"


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value or 'absent'}" for name, value in values.items())
