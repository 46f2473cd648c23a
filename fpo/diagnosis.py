"""What `fpo doctor` finds out about backends, devices and libraries."""

import importlib
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fpo.backends import install_command, missing_packages, select_backend
from fpo_core import __version__
from fpo_core.config import BackendConfig, DoctorConfig
from fpo_core.data.cache import cache_root
from fpo_core.errors import BackendError
from fpo_core.io.memory import physical_memory

BACKENDS = ("mlx", "torch")
LIBRARIES = {
    "mlx": ("mlx", "mlx-lm"),
    "torch": ("torch", "peft"),
    "": ("transformers", "datasets", "tokenizers", "safetensors", "numpy", "huggingface-hub"),
}
SLOW_GFLOPS = 20.0
"""A CPU product slower than this is the reference BLAS."""


def diagnose(config: DoctorConfig) -> dict[str, Any]:
    """Everything that can be said, as JSON values. BackendError for a named backend not there."""
    wanted = BACKENDS if config.backend == "auto" else (config.backend,)
    if config.backend != "auto":
        select_backend(BackendConfig(backend=config.backend))
    cache = cache_root(config.cache).parent
    return {
        "fpo": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "memory": physical_memory(),
        "versions": {name: _version(name) for name in LIBRARIES[""]},
        "backends": {name: _backend(name) for name in wanted},
        "auto": _auto(),
        "cache": {"folder": str(cache), "bytes": _size(cache) if cache.is_dir() else 0},
    }


def _auto() -> str | None:
    try:
        return select_backend(BackendConfig())
    except BackendError:
        return None


def _backend(name: str) -> dict[str, Any]:
    missing = missing_packages(name)
    found: dict[str, Any] = {
        "installed": not missing,
        "versions": {library: _version(library) for library in LIBRARIES[name]},
    }
    if missing:
        return found | {"missing": missing, "install": install_command(name)}
    try:
        return found | (_mlx() if name == "mlx" else _torch())
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        return found | {"installed": False, "broken": reason, "install": install_command(name)}


def _mlx() -> dict[str, Any]:
    mx = importlib.import_module("mlx.core")
    gpu = mx.is_available(mx.gpu)
    found: dict[str, Any] = {"devices": ["gpu", "cpu"] if gpu else ["cpu"]}
    if gpu:
        return found | {"gpu": dict(mx.device_info(mx.gpu))}
    a = mx.random.normal((512, 512))
    mx.eval(a)
    gflops = _gflops(lambda: mx.eval(a @ a))
    found["cpu_gflops"] = gflops
    if sys.platform == "linux" and gflops < SLOW_GFLOPS:
        found["note"] = (
            "MLX's Linux build multiplies matrices with the reference BLAS: right, but slow. "
            f"For speed on this machine use torch: {install_command('torch')}"
        )
    return found


def _torch() -> dict[str, Any]:
    torch = importlib.import_module("torch")
    devices = ["cpu"]
    found: dict[str, Any] = {"threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        devices.insert(0, "cuda")
        found["gpu"] = {
            "name": torch.cuda.get_device_name(0),
            "memory": torch.cuda.get_device_properties(0).total_memory,
        }
    if torch.backends.mps.is_available():
        devices.append("mps")
    a = torch.randn(512, 512)
    return found | {"devices": devices, "cpu_gflops": _gflops(lambda: a @ a)}


def _gflops(product: Any, size: int = 512) -> float:
    product()
    start = time.perf_counter()
    product()
    return 2 * size**3 / max(time.perf_counter() - start, 1e-9) / 1e9


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _size(folder: Any) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def lines(found: dict[str, Any]) -> list[str]:
    """The findings for people."""
    memory = "" if found["memory"] is None else f", {found['memory'] / 2**30:.1f} GiB memory"
    result = [
        f"fpo-mlx {found['fpo']}, Python {found['python']}, {found['system']}, "
        f"{found['cpus']} CPUs{memory}",
        "libraries: " + _listed(found["versions"]),
    ]
    for name, backend in found["backends"].items():
        result += _backend_lines(name, backend)
    result.append(f"--backend auto chooses: {found['auto'] or 'nothing, no backend is installed'}")
    cache = found["cache"]
    result.append(f"cache: {cache['folder']}, {cache['bytes'] / 2**20:.1f} MiB")
    return result


def _backend_lines(name: str, backend: dict[str, Any]) -> list[str]:
    if not backend["installed"]:
        why = backend.get("broken") or "missing " + ", ".join(backend["missing"])
        return [f"{name}: not usable ({why}); get it with: {backend['install']}"]
    text = f"{name}: {_listed(backend['versions'])}; devices {', '.join(backend['devices'])}"
    if "gpu" in backend:
        text += f"; GPU {_listed(backend['gpu'])}"
    if "cpu_gflops" in backend:
        text += f"; CPU products at {backend['cpu_gflops']:.0f} GFLOPS"
    return [text, *([f"  {backend['note']}"] if "note" in backend else [])]


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value or 'absent'}" for name, value in values.items())
