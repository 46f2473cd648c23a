"""Dequantising the weights of a checkpoint that mlx-lm quantised."""

from pathlib import Path
from typing import Any

import ml_dtypes
import mlx.core as mx
import numpy as np

from fpo_core.io.reader import open_safetensors
from fpo_core.models.folder import damaged


class Dequantiser:
    """`fpo_core.models.weights.Dequantiser` of safetensors files."""

    def __init__(self, files: list[Path], settings: dict[str, Any]) -> None:
        self._settings = settings
        # Not mx.load, which reads later, and other numbers where a file was cut short meanwhile.
        opened = [open_safetensors(path, damaged) for path in files]
        self._file_of = {name: file for file in opened for name in file.entries}

    def shape(self, name: str) -> tuple[int, ...]:
        """See `fpo_core.models.weights.Dequantiser`."""
        return tuple(self._dequantised(name).shape)

    def weight(self, name: str) -> np.ndarray:
        """See `fpo_core.models.weights.Dequantiser`."""
        return np.array(self._dequantised(name).astype(mx.float32))

    def _stored(self, name: str) -> mx.array | None:
        if name not in self._file_of:
            return None
        array = self._file_of[name].stored(name)
        if array.dtype == ml_dtypes.bfloat16:
            return mx.array(array.view(np.uint16)).view(mx.bfloat16)
        return mx.array(array)

    def _dequantised(self, name: str) -> mx.array:
        module = name.removesuffix(".weight")
        # mlx-lm lets single modules differ from the checkpoint's bits and groups.
        override = self._settings.get(module)
        settings = override if isinstance(override, dict) else self._settings
        scales, biases = (self._stored(f"{module}.{part}") for part in ("scales", "biases"))
        weight = self._stored(name)
        assert weight is not None
        assert scales is not None
        if settings.get("mode", "affine") == "affine":
            # In float32: an adapter is merged next, and a half-precision result would be rounded
            # twice.
            scales = scales.astype(mx.float32)
            biases = None if biases is None else biases.astype(mx.float32)
        return mx.dequantize(
            weight,
            scales,
            biases,
            group_size=settings["group_size"],
            bits=settings["bits"],
            mode=settings.get("mode", "affine"),
        )
