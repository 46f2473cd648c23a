"""Activations of a frozen transformers model at a hook."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fpo_core.config import ModelConfig
from fpo_core.models.bounds import Bounds
from fpo_core.models.folder import ModelFolder
from fpo_core.sae.hook import Hook
from fpo_torch import device as devices
from fpo_torch import ops
from fpo_torch.hooks import Tap
from fpo_torch.models import find_blocks, load_model, placed
from fpo_torch.trainable import to_numpy


class TorchReader:
    """`fpo_core.sae.explained_variance.ActivationReader` on a transformers model."""

    ops = ops
    numpy = staticmethod(to_numpy)

    def __init__(self, folder: Path, config: ModelConfig, hook: Hook) -> None:
        self._device = devices.select_device(config)
        model = load_model(folder, config, devices.select_dtype(config, self._device))
        self._model = placed(model, self._device).eval()
        self._bounds = Bounds.of(ModelFolder(folder, str(folder)), config)
        self._tap = Tap(find_blocks(model)[1][hook.layer], hook.site)

    @torch.no_grad()
    def read(self, tokens: np.ndarray) -> Tensor:
        """See `fpo_core.sae.explained_variance.ActivationReader`."""
        self._bounds.check_tokens(tokens)
        ids = torch.from_numpy(tokens).long().to(self._device)
        _, value = self._tap.capture(
            # Of the logits, which nobody reads, one column.
            lambda: self._model(input_ids=ids, logits_to_keep=1, use_cache=False)
        )
        return value
