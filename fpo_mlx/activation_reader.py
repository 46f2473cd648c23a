"""Activations of a frozen mlx-lm model at a hook."""

from pathlib import Path

import mlx.core as mx
import numpy as np

from fpo_core.config import ModelConfig
from fpo_core.models.bounds import Bounds
from fpo_core.models.folder import ModelFolder
from fpo_core.sae.hook import Hook
from fpo_mlx import device as devices
from fpo_mlx import ops
from fpo_mlx.hooks import Tap
from fpo_mlx.models import find_blocks, load_model


class MlxReader:
    """`fpo_core.sae.explained_variance.ActivationReader` on an mlx-lm model."""

    ops = ops

    def __init__(self, folder: Path, config: ModelConfig, hook: Hook) -> None:
        dtype = devices.select_dtype(config, devices.select_device(config))
        self._model = load_model(folder, config, dtype).model
        self._bounds = Bounds.of(ModelFolder(folder, str(folder)), config)
        self._model.eval()
        self._tap = Tap(find_blocks(self._model)[1][hook.layer], hook.site)
        self._tap.install()

    def read(self, tokens: np.ndarray) -> mx.array:
        """See `fpo_core.sae.explained_variance.ActivationReader`."""
        self._bounds.check_tokens(tokens)
        # Lazy: the blocks after the hook, and the head, are never evaluated.
        _, value = self._tap.capture(lambda: self._model(mx.array(tokens)))
        mx.eval(value)
        return value

    @staticmethod
    def numpy(array: mx.array) -> np.ndarray:
        """See `fpo_core.sae.explained_variance.ActivationReader`."""
        return np.array(array.astype(mx.float32))
