"""Counts how often the host waits for a device: on a CPU, where nothing would show it in time."""

import importlib
import sys
from typing import Any

import numpy as np
import pytest


class HostReads:
    """Reads of arrays of a backend by Python, since it was made."""

    def __init__(self, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._names: list[str] = []
        {"torch": self._watch_torch, "mlx": self._watch_mlx}[backend](monkeypatch)

    def taken(self) -> list[str]:
        """What was called since the last time."""
        names, self._names = self._names, []
        return names

    def _counted(self, holder: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        original = getattr(holder, name)

        def read(*args: Any, **options: Any) -> Any:
            self._names.append(name)
            return original(*args, **options)

        monkeypatch.setattr(holder, name, read)

    def _watch_torch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        torch = importlib.import_module("torch")
        optimizer = importlib.import_module("fpo_torch.optimizer")
        # As on CUDA, where the optimizer has no count of steps on the host.
        monkeypatch.setattr(optimizer, "_fused", lambda weight: True)
        monkeypatch.setattr(optimizer, "_flat_gradients", lambda trainable: None)
        for name in ("numpy", "tolist", "item", "__bool__", "__float__", "__int__", "__index__"):
            self._counted(torch.Tensor, name, monkeypatch)
        for name in ("nonzero", "masked_select", "unique", "bincount", "equal", "allclose"):
            self._counted(torch, name, monkeypatch)

    def _watch_mlx(self, monkeypatch: pytest.MonkeyPatch) -> None:
        mx = importlib.import_module("mlx.core")
        for name in ("eval", "synchronize"):
            self._counted(mx, name, monkeypatch)
        for name in ("tolist", "item", "__bool__", "__float__", "__int__"):
            self._counted(mx.array, name, monkeypatch)
        importlib.import_module("fpo_mlx.policy")
        watched = _Numpy(lambda x: isinstance(x, mx.array) and self._names.append("numpy"))
        for name, module in list(sys.modules.items()):
            if name.startswith(("fpo_mlx", "fpo_core")) and getattr(module, "np", None) is np:
                monkeypatch.setattr(module, "np", watched)


class _Numpy:
    """NumPy, which tells of what it turns into arrays of its own."""

    def __init__(self, tell: Any) -> None:
        self._tell = tell

    def array(self, x: Any, *args: Any, **options: Any) -> np.ndarray:
        self._tell(x)
        return np.array(x, *args, **options)

    def asarray(self, x: Any, *args: Any, **options: Any) -> np.ndarray:
        self._tell(x)
        return np.asarray(x, *args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)
