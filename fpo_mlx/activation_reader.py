"""Activations of a frozen mlx-lm model at some hooks, and its logits with others there."""

from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np

from fpo_core.config import ModelConfig
from fpo_core.models.bounds import Bounds
from fpo_core.models.folder import ModelFolder
from fpo_core.sae.activation_reader import Splice
from fpo_core.sae.hook import Hook
from fpo_core.sae.taps import capture_all
from fpo_mlx import device as devices
from fpo_mlx import ops
from fpo_mlx.hooks import Tap
from fpo_mlx.models import find_blocks, load_model


class MlxReader:
    """`fpo_core.sae.activation_reader.ActivationReader` on an mlx-lm model."""

    ops = ops

    def __init__(
        self, folder: Path, config: ModelConfig, hooks: Sequence[Hook], *, whole: bool = False
    ) -> None:
        # Lazy: of a model that is not `whole`, blocks after the hooks are neither read from disk
        # nor evaluated.
        del whole
        dtype = devices.select_dtype(config, devices.select_device(config))
        self._model = load_model(folder, config, dtype).model
        self._bounds = Bounds.of(ModelFolder(folder, str(folder)), config)
        self._model.eval()
        blocks = find_blocks(self._model)[1]
        self._taps = [Tap(blocks[hook.layer], hook.site) for hook in hooks]
        for tap in self._taps:
            tap.install()

    def read(self, tokens: np.ndarray) -> tuple[mx.array, ...]:
        """See `fpo_core.sae.activation_reader.ActivationReader`."""
        self._bounds.check_tokens(tokens)
        _, values = capture_all(self._taps, lambda: self._model(mx.array(tokens)))
        mx.eval(values)
        return values

    def logits(self, tokens: np.ndarray, splice: Splice | None = None) -> mx.array:
        """See `fpo_core.sae.activation_reader.ActivationReader`."""
        self._bounds.check_tokens(tokens)
        with self._taps[0].splicing(splice):
            logits = self._model(mx.array(tokens))
            mx.eval(logits)
        return logits

    @staticmethod
    def numpy(array: mx.array) -> np.ndarray:
        """See `fpo_core.sae.activation_reader.ActivationReader`."""
        return np.array(array.astype(mx.float32))
