"""Dequantising the weights of a checkpoint that mlx-lm quantised."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from fpo_core.errors import ModelError


class Dequantiser:
    """`fpo_core.models.weights.Dequantiser` of safetensors files."""

    def __init__(self, files: list[Path], settings: dict[str, Any]) -> None:
        self._settings = settings
        # mx.load is lazy: an array is read from disk when it is used.
        self._arrays: dict[str, Any] = {}
        for file in files:
            self._arrays |= mx.load(str(file))  # pyright: ignore[reportOperatorIssue]

    def shape(self, name: str) -> tuple[int, ...]:
        """See `fpo_core.models.weights.Dequantiser`."""
        return tuple(self._dequantised(name).shape)

    def weight(self, name: str) -> np.ndarray:
        """See `fpo_core.models.weights.Dequantiser`."""
        try:
            return np.array(self._dequantised(name).astype(mx.float32))
        except RuntimeError as error:  # MLX's, of a file that was cut short meanwhile
            raise ModelError(
                f"{name} cannot be read: {error}: leave the model alone while it is merged"
            ) from None

    def _dequantised(self, name: str) -> mx.array:
        module = name.removesuffix(".weight")
        # mlx-lm lets single modules differ from the checkpoint's bits and groups.
        override = self._settings.get(module)
        settings = override if isinstance(override, dict) else self._settings
        scales, biases = (self._arrays.get(f"{module}.{part}") for part in ("scales", "biases"))
        assert scales is not None
        if settings.get("mode", "affine") == "affine":
            # In float32: an adapter is merged next, and a half-precision result would be rounded
            # twice.
            scales = scales.astype(mx.float32)
            biases = None if biases is None else biases.astype(mx.float32)
        return mx.dequantize(
            self._arrays[name],
            scales,
            biases,
            group_size=settings["group_size"],
            bits=settings["bits"],
            mode=settings.get("mode", "affine"),
        )
