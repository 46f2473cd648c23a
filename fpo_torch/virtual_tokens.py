"""Virtual tokens in transformers' models: embeddings of a soft prompt, keys and values of a prefix.

Their ids lie beyond the vocabulary (`fpo_core.adapters.virtual_tokens`). The embedding layer gives
them the prompt's rows, or of a prefix those of token 0, which nothing attends to: a cache, and on a
packed row the attention function, puts the prefix in place of their keys and values.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from fpo_core.adapters.virtual_tokens import (
    PROMPT,
    VIRTUAL_ID,
    initial_virtual,
    key_heads,
    prefix_name,
    unfit,
    virtual_shapes,
)
from fpo_core.backend.parts import Setup
from fpo_core.errors import BackendError
from fpo_core.models.folder import ModelFolder
from fpo_torch.trainable import Trainable, to_numpy

Weights = Mapping[str, Tensor]


class Prefix:
    """The keys and values of virtual tokens, and where these stand in the sequences of a pass."""

    def __init__(self, weights: Weights, heads: int, tokens: Tensor) -> None:
        """`tokens` (b, t) are the ids of a pass over whole sequences."""
        self._weights, self._heads = weights, heads
        places = tokens - VIRTUAL_ID
        self._virtual = (places >= 0)[:, None, :, None]
        self._places = places.clamp(min=0)

    def put(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (b, g, t, head) of a block, with the prefix at the virtual tokens."""
        return self._put(layer, "keys", keys), self._put(layer, "values", values)

    def _put(self, layer: int, side: str, x: Tensor) -> Tensor:
        weight = self._weights[prefix_name(layer, side)]
        width = weight.shape[1] // self._heads
        if x.shape[1] != self._heads or x.shape[3] != width:
            raise unfit(layer, tuple(x.shape), self._heads, width)
        rows = weight.to(x.dtype).view(len(weight), self._heads, width)[self._places]
        return torch.where(self._virtual, rows.transpose(1, 2), x)


class PrefixCache(DynamicCache):
    """A cache of transformers that stores the prefix in place of the virtual tokens' own."""

    def __init__(self, model: PreTrainedModel, prefix: Prefix) -> None:
        super().__init__(config=model.config)
        self._prefix = prefix

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """See transformers; the first call of a block brings whole sequences."""
        if not self.get_seq_length(layer_idx):
            key_states, value_states = self._prefix.put(layer_idx, key_states, value_states)
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)


class VirtualPasses:
    """What a model's pass over token ids takes besides them."""

    def __init__(self, model: PreTrainedModel, trainable: Trainable, setup: Setup) -> None:
        self._model, self._weights = model, trainable.parameters
        self._prefixed = setup.adapter.fine_tune_type == "prefix"
        self._heads = key_heads(ModelFolder(setup.folder, "")) if self._prefixed else 0
        self._checkpointed = setup.grad_checkpoint

    def prefix(self, tokens: Tensor) -> Prefix | None:
        """The prefix for a pass over these ids (b, t); None where there is none."""
        if not self._prefixed or not len(next(iter(self._weights.values()))):
            return None
        return Prefix(self._weights, self._heads, tokens)

    def options(self, tokens: Tensor) -> dict[str, Any]:
        """Arguments of a padded pass; BackendError where checkpoints would lose the prefix."""
        prefix = self.prefix(tokens)
        if prefix is None:
            return {}
        if self._checkpointed and torch.is_grad_enabled():
            raise BackendError(
                "grad_checkpoint is set and the plain path runs a prefix, whose cache transformers "
                "drops in checkpointed blocks: leave grad_checkpoint or plain out"
            )
        return {"past_key_values": PrefixCache(self._model, prefix)}


def add_virtual_tokens(model: PreTrainedModel, setup: Setup) -> Trainable:
    """Freeze a model and train virtual tokens in front of its sequences."""
    if setup.step.compile and setup.adapter.fine_tune_type == "prefix":
        raise BackendError(
            "compile is set while fine_tune_type is prefix, which compiled blocks cannot read: "
            "leave compile out"
        )
    model.requires_grad_(False)
    shapes = virtual_shapes(setup.adapter, ModelFolder(setup.folder, ""))
    device = model.device
    parameters = {n: nn.Parameter(torch.zeros(s, device=device)) for n, s in shapes.items()}
    trainable = Trainable(parameters, adapters=True)
    embedding: Any = model.get_input_embeddings()
    vocabulary = torch.arange(model.config.get_text_config().vocab_size, device=device)
    rows = to_numpy(embedding(vocabulary)) if PROMPT in shapes else np.zeros((0, 0), np.float32)
    trainable.load(initial_virtual(shapes, setup.model.seed, rows))
    vars(embedding)["forward"] = _embed(embedding.forward, parameters.get(PROMPT))
    return trainable


def _embed(forward: Callable[[Tensor], Tensor], prompt: Tensor | None) -> Callable[..., Tensor]:
    def embed(tokens: Tensor) -> Tensor:
        """(b, t) -> (b, t, d)."""
        places = tokens - VIRTUAL_ID
        virtual = places >= 0
        x = forward(tokens.masked_fill(virtual, 0))
        if prompt is None or not len(prompt):
            return x
        return torch.where(virtual[..., None], prompt.to(x.dtype)[places.clamp(min=0)], x)

    return embed
