"""Choosing a backend, and building its policy."""

import importlib
import importlib.util
import platform
import sys
from functools import cache
from pathlib import Path

from fpo.launch import launched_for
from fpo_cli.console.library_noise import quiet_loading
from fpo_core.backend.policy import Policy
from fpo_core.backend.process_group import ALONE, Group
from fpo_core.config import AdapterConfig, BackendConfig, ModelConfig, StepConfig
from fpo_core.errors import BackendError
from fpo_core.sae.explained_variance import ActivationReader
from fpo_core.sae.hook import Hook
from fpo_core.sae.taps import Features

_INSTALL = {"mlx": "pip install 'fpo-mlx[mlx]'", "torch": "pip install 'fpo-mlx[torch]'"}
_PACKAGES = {"mlx": ("mlx", "mlx_lm"), "torch": ("torch", "peft")}


def missing_packages(backend: str) -> list[str]:
    """Packages that a backend needs and this environment lacks."""
    return [name for name in _PACKAGES[backend] if importlib.util.find_spec(name) is None]


def install_command(backend: str) -> str:
    """How to get a backend."""
    return _INSTALL[backend]


def select_backend(config: BackendConfig) -> str:
    """The backend that was asked for, or its launcher's, or torch, but mlx first on Metal.

    Raises BackendError where it is not installed, naming what is missing and how to get it.
    """
    if config.backend != "auto":
        missing = missing_packages(config.backend)
        if missing:
            raise BackendError(
                f"--backend {config.backend} needs {' and '.join(missing)}, not installed here: "
                f"{_INSTALL[config.backend]}"
            )
        return config.backend
    launched = launched_for()
    if launched is not None:
        return launched
    on_apple = sys.platform == "darwin" and platform.machine() == "arm64"
    for backend in ("mlx", "torch") if on_apple else ("torch", "mlx"):
        if not missing_packages(backend):
            return backend
    raise BackendError(
        f"neither backend is installed: {_INSTALL['mlx']} on Apple Silicon, "
        f"{_INSTALL['torch']} elsewhere"
    )


def join_group(backend: str) -> Group:
    """The processes that this one was started with: torchrun's, mlx.launch's, or itself alone.

    Raises BackendError where the launcher is the other backend's.
    """
    launched = launched_for()
    if launched is None:
        return ALONE
    if launched != backend:
        launchers = {"torch": "torchrun", "mlx": "mlx.launch"}
        raise BackendError(
            f"--backend {backend} was started by {launchers[launched]}, which is for {launched}: "
            f"use {launchers[backend]}, or leave --backend out"
        )
    return _joined(backend)


@cache
def _joined(backend: str) -> Group:
    """Joining twice would wait for ever."""
    kind = {"mlx": "MlxGroup", "torch": "TorchGroup"}[backend]
    return getattr(importlib.import_module(f"fpo_{backend}.process_group"), kind)()


def build_policy(
    backend: str,
    folder: Path,
    model: ModelConfig,
    adapter: AdapterConfig,
    features: Features | None,
    *,
    grad_checkpoint: bool = False,
    step: StepConfig | None = None,
) -> Policy:
    """The policy of a backend; the framework is imported here and nowhere before."""
    quiet_loading()
    module = importlib.import_module(f"fpo_{backend}.policy")
    kind = {"mlx": "MlxPolicy", "torch": "TorchPolicy"}[backend]
    build = getattr(module, kind)
    return build(folder, model, adapter, features, grad_checkpoint=grad_checkpoint, step=step)


def build_reader(backend: str, folder: Path, model: ModelConfig, hook: Hook) -> ActivationReader:
    """A frozen model of a backend, read at a hook."""
    quiet_loading()
    module = importlib.import_module(f"fpo_{backend}.activation_reader")
    kind = {"mlx": "MlxReader", "torch": "TorchReader"}[backend]
    return getattr(module, kind)(folder, model, hook)
