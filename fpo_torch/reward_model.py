"""A reward model of transformers."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from fpo_core.config import ModelConfig
from fpo_core.models.bounds import Bounds
from fpo_core.models.folder import ModelFolder
from fpo_torch import device as devices
from fpo_torch.models import load_model
from fpo_torch.trainable import to_numpy


class TorchRewardModel:
    """`fpo_core.judges.reward_model.RewardModel` on transformers' classifiers."""

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        self._device = devices.select_device(config)
        dtype = devices.select_dtype(config, self._device)
        model: Any = load_model(folder, config, dtype, AutoModelForSequenceClassification)
        self._model = model.to(self._device).eval()
        self._bounds = Bounds.of(ModelFolder(folder, str(folder)), config)
        self.width = None if self._bounds.limit is None else self._bounds.limit.tokens
        self._settings = self._model.config.get_text_config()
        self._pad = self._settings.pad_token_id

    @torch.no_grad()
    def values(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """See `fpo_core.judges.reward_model.RewardModel`."""
        self._bounds.check_tokens(tokens)
        mask = np.arange(tokens.shape[1]) < lengths[:, None]
        pad = self._unused(tokens[mask])
        # transformers reads a decoder at the last token that is no padding, by its id.
        self._model.config.pad_token_id = self._settings.pad_token_id = pad
        ids, attended = (
            torch.from_numpy(array).long().to(self._device)
            for array in (np.where(mask, tokens, pad), mask)
        )
        logits = self._model(input_ids=ids, attention_mask=attended).logits
        return to_numpy(logits.float())[:, 0]

    def _unused(self, tokens: np.ndarray) -> int:
        """The padding's own id, or, where text holds it as the end of a turn, one that none has."""
        present = {*np.unique(tokens).tolist()}
        candidates = [self._pad, *range(self._settings.vocab_size)]
        return next(c for c in candidates if c is not None and c not in present)
