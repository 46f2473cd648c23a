"""A reward model on MLX: the body of an mlx-lm model with a value head."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn

from fpo_core.config import ModelConfig
from fpo_core.errors import ModelError
from fpo_core.io.reader import open_safetensors
from fpo_core.judges.reward_model import HEAD
from fpo_core.models.bounds import Bounds
from fpo_core.models.folder import ModelFolder
from fpo_mlx import device as devices
from fpo_mlx.models import body_of, find_blocks, load_model, model_classes


class MlxRewardModel:
    """`fpo_core.judges.reward_model.RewardModel` on mlx-lm's causal models."""

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        dtype = devices.select_dtype(config, devices.select_device(config))
        model = load_model(folder, config, dtype, _headless).model
        model.eval()
        self._body = body_of(model, find_blocks(model)[0])
        self._head = mx.array(_value_head(ModelFolder(folder, str(folder))))
        self._bounds = Bounds.of(ModelFolder(folder, str(folder)), config)
        self.width = None if self._bounds.limit is None else self._bounds.limit.tokens

    def values(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """See `fpo_core.judges.reward_model.RewardModel`."""
        self._bounds.check_tokens(tokens)
        # Padding is on the right of a causal model, so it needs no attention mask.
        states = self._body(mx.array(tokens))
        last = states[mx.arange(len(lengths)), mx.array(lengths - 1)]
        return np.array((last.astype(mx.float32) @ self._head.T)[:, 0])


def _value_head(model: ModelFolder) -> np.ndarray:
    for path in model.weight_files:
        file = open_safetensors(path, ModelError)
        if HEAD in file.entries:
            return file.rows(HEAD).astype(np.float32)
    raise ModelError(f"{model.name} holds no {HEAD}, expected the value head of a reward model")


def _headless(config: dict[str, Any]) -> tuple[type[nn.Module], type]:
    """The classes of a causal model that is loaded without its output layer."""
    model_class, args_class = model_classes(config)

    class WithoutHead(model_class):
        def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
            del weights[HEAD]
            sanitize = getattr(super(), "sanitize", lambda same: same)
            weights = sanitize(weights)
            self.pop("lm_head", None)
            return {n: w for n, w in weights.items() if not n.startswith("lm_head.")}

    return WithoutHead, args_class
