"""Reading weights that mlx-lm quantised."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np


class Dequantiser:
    """`fpo_core.models.weights.Dequantiser` of safetensors files."""

    def __init__(self, files: list[Path], settings: dict[str, Any]) -> None:
        self._settings = settings
        # Arrays are read when they are used, not here.
        self._arrays: dict[str, Any] = {}
        for file in files:
            self._arrays |= mx.load(str(file))  # pyright: ignore[reportOperatorIssue]

    def shape(self, name: str) -> tuple[int, ...]:
        """See `fpo_core.models.weights.Dequantiser`."""
        return tuple(self._whole(name).shape)

    def weight(self, name: str) -> np.ndarray:
        """See `fpo_core.models.weights.Dequantiser`."""
        return np.array(self._whole(name).astype(mx.float32))

    def _whole(self, name: str) -> mx.array:
        module = name.removesuffix(".weight")
        own = self._settings.get(module)  # mlx-lm lets single modules differ
        settings = own if isinstance(own, dict) else self._settings
        scales, biases = (self._arrays.get(f"{module}.{part}") for part in ("scales", "biases"))
        assert scales is not None
        if settings.get("mode", "affine") == "affine":
            # In float32, or the merged weight would be rounded twice.
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
