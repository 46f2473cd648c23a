"""Activations of a frozen transformers model at some hooks, and its logits with others there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fpo_core.config import ModelConfig
from fpo_core.models.bounds import Bounds
from fpo_core.models.folder import ModelFolder
from fpo_core.sae.activation_reader import Splice
from fpo_core.sae.hook import Hook
from fpo_core.sae.taps import capture_all
from fpo_torch import device as devices
from fpo_torch import ops
from fpo_torch.hooks import Tap
from fpo_torch.models import find_blocks, load_model, placed
from fpo_torch.trainable import to_numpy


class TorchReader:
    """`fpo_core.sae.activation_reader.ActivationReader` on a transformers model."""

    ops = ops
    numpy = staticmethod(to_numpy)

    def __init__(
        self, folder: Path, config: ModelConfig, hooks: Sequence[Hook], *, whole: bool = False
    ) -> None:
        self._device = devices.select_device(config)
        model = load_model(folder, config, devices.select_dtype(config, self._device))
        blocks = find_blocks(model)[1]
        self._whole, deepest = whole, max(hook.layer for hook in hooks)
        if not whole:
            # Blocks that no pass reaches give their memory back.
            for number in range(deepest + 1, len(blocks)):
                blocks[number] = nn.Identity()
        self._model = placed(model, self._device).eval()
        self._bounds = Bounds.of(ModelFolder(folder, str(folder)), config)
        self._taps = [Tap(blocks[hook.layer], hook.site) for hook in hooks]
        blocks[deepest].register_forward_hook(self._end)

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        if not self._whole:
            raise _Reached

    @torch.no_grad()
    def read(self, tokens: np.ndarray) -> tuple[Tensor, ...]:
        """See `fpo_core.sae.activation_reader.ActivationReader`."""
        return capture_all(self._taps, lambda: self._pass(tokens, logits_to_keep=1))[1]

    @torch.no_grad()
    def logits(self, tokens: np.ndarray, splice: Splice | None = None) -> Tensor:
        """See `fpo_core.sae.activation_reader.ActivationReader`."""
        with self._taps[0].splicing(splice):
            return self._pass(tokens).logits

    def _pass(self, tokens: np.ndarray, **options: Any) -> Any:
        self._bounds.check_tokens(tokens)
        ids = torch.from_numpy(tokens).long().to(self._device)
        try:
            return self._model(input_ids=ids, use_cache=False, **options)
        except _Reached:
            return None


class _Reached(Exception):  # noqa: N818
    """The deepest tapped block is through: the rest of the model has nothing to add."""
