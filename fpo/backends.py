"""Choosing a backend, and building what it provides; see `fpo_core.config.backends` for the list.

A framework is imported by the functions below, when they are called, and nowhere else in `fpo`.
"""

import importlib
import importlib.util
import platform
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from fpo.launch import launched_for
from fpo_core.backend.policy import Policy
from fpo_core.backend.process_group import ALONE, Group
from fpo_core.config import AdapterConfig, BackendConfig, ModelConfig
from fpo_core.config.backends import BACKENDS
from fpo_core.errors import BackendError
from fpo_core.sae.activation_reader import ActivationReader
from fpo_core.sae.hook import Hook
from fpo_core.sae.taps import Features
from fpo_core.sae_training.kernels import Kernels


def missing_packages(backend: str) -> list[str]:
    """Packages that a backend needs and this environment lacks."""
    return [name for name in BACKENDS[backend].requires if importlib.util.find_spec(name) is None]


def select_backend(config: BackendConfig) -> str:
    """The backend that was asked for, or its launcher's, or torch, but mlx first on Metal.

    Raises BackendError where it is not installed, naming what is missing and how to get it.
    """
    if config.backend != "auto":
        missing = missing_packages(config.backend)
        if missing:
            raise BackendError(
                f"backend {config.backend} needs {' and '.join(missing)}, not installed here: "
                f"{BACKENDS[config.backend].install}"
            )
        return config.backend
    launched = launched_for()
    if launched is not None:
        return launched
    for backend in _preferred():
        if not missing_packages(backend):
            return backend
    ways = (f"{backend.install} for {name}" for name, backend in BACKENDS.items())
    raise BackendError(f"no backend is installed: {', or '.join(ways)}")


def _preferred() -> list[str]:
    """Metal's own framework first on Apple Silicon, torch first elsewhere, others after them."""
    on_apple = sys.platform == "darwin" and platform.machine() == "arm64"
    first = "mlx" if on_apple else "torch"
    return [first, *(name for name in BACKENDS if name != first)]


def join_group(backend: str) -> Group:
    """The processes that this one was started with: torchrun's, mlx.launch's, or itself alone.

    Raises BackendError where the launcher is another backend's.
    """
    launched = launched_for()
    if launched is None:
        return ALONE
    if launched != backend:
        raise BackendError(
            f"backend {backend} was started by {BACKENDS[launched].launcher}, which is for "
            f"{launched}: use {BACKENDS[backend].launcher}, or leave backend out"
        )
    return _joined(backend)


@cache  # joining twice would wait for ever
def _joined(backend: str) -> Group:
    return provided(backend, "process_group", "Group")()


def build_policy(
    backend: str,
    folder: Path,
    model: ModelConfig,
    adapter: AdapterConfig,
    features: Features | None,
    **options: Any,
) -> Policy:
    """The policy of a backend, with its weights loaded from `folder`; see `BasePolicy`."""
    _hide_loading_bar()
    return provided(backend, "policy", "Policy")(folder, model, adapter, features, **options)


def build_reader(
    backend: str, folder: Path, model: ModelConfig, hooks: Sequence[Hook], *, whole: bool = False
) -> ActivationReader:
    """A frozen model of a backend, read at some hooks; `whole`, it has logits too."""
    _hide_loading_bar()
    return provided(backend, "activation_reader", "Reader")(folder, model, hooks, whole=whole)


def build_sampler(name: str, backend: str, *options: Any) -> Any:
    """Another library that samples for a backend, opened with these options.

    Raises BackendError where the backend has no such sampler, or it cannot be used here.
    """
    if name not in BACKENDS[backend].samplers:
        others = [other for other, entry in BACKENDS.items() if name in entry.samplers]
        raise BackendError(
            f"sampler is {name}, which does not sample for backend {backend}: set backend to "
            f"{' or '.join(others)}, or leave sampler out"
        )
    return getattr(backend_module(backend, f"{name}_sampling"), f"{name.title()}Sampler")(*options)


def build_kernels(backend: str, config: BackendConfig) -> Kernels:
    """What a backend trains autoencoders with."""
    return provided(backend, "kernels.sparse_codes", "Kernels")(config)


def backend_module(backend: str, name: str) -> ModuleType:
    """A module of a backend's package."""
    return importlib.import_module(f"{BACKENDS[backend].package}.{name}")


def provided(backend: str, module: str, kind: str) -> Any:
    """The class of a `kind` in a module of a backend, such as `TorchPolicy`."""
    return getattr(backend_module(backend, module), BACKENDS[backend].prefix + kind)


def _hide_loading_bar() -> None:
    """Hide transformers' bar over weights, which come from a local disk; downloads keep theirs."""
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    if not are_progress_bars_disabled():
        # transformers switches the hub's bars off together with its own.
        transformers_logging.disable_progress_bar()
        enable_progress_bars()
