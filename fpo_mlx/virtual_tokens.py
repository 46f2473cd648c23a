"""Virtual tokens in mlx-lm's models: embeddings of a soft prompt, keys and values of a prefix.

Their ids lie beyond the vocabulary (`fpo_core.adapters.virtual_tokens`). The embedding layer gives
them the prompt's rows, or of a prefix those of token 0, which nothing attends to: a fake KV cache
hands each attention module the prefix in place of their keys and values. The weights are arrays of
the attention modules themselves, so that checkpointed blocks differentiate them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx_lm.models.base import create_attention_mask
from mlx_lm.models.cache import make_prompt_cache

from fpo_core.adapters.virtual_tokens import (
    PROMPT,
    SIDES,
    VIRTUAL_ID,
    initial_virtual,
    key_heads,
    prefix_name,
    unfit,
    virtual_shapes,
)
from fpo_core.backend.parts import Setup
from fpo_core.errors import ModelError, SaeError
from fpo_core.models.folder import ModelFolder
from fpo_mlx.attention import attention_module
from fpo_mlx.hooks import intercept
from fpo_mlx.trainable import Places, Trainable

Arrays = tuple[mx.array, mx.array]


class Prefix:
    """Keys and values of the virtual tokens in the attention module of one block."""

    def __init__(self, module: nn.Module, block: int, heads: int) -> None:
        self.module, self._block, self._heads = module, block, heads

    def rows(self) -> Arrays:
        """Both, (1, g, n, head); the module holds them as (g · head, n)."""
        keys, values = (self.module[side] for side in map(_attribute, SIDES))
        return self._rows(keys), self._rows(values)

    def _rows(self, weight: mx.array) -> mx.array:
        width, count = weight.shape
        return weight.reshape(1, self._heads, width // self._heads, count).swapaxes(2, 3)

    def put(self, *new: mx.array) -> tuple[mx.array, ...]:
        """Keys and values (b, g, t, head) with the trained ones at the first n of t."""
        return tuple(self._put(x, rows) for x, rows in zip(new, self.rows(), strict=True))

    def _put(self, x: mx.array, rows: mx.array) -> mx.array:
        _, heads, count, width = rows.shape
        if x.shape[1] != heads or x.shape[3] != width:
            raise unfit(self._block, tuple(x.shape), heads, width)
        if not count:
            return x
        rows = mx.broadcast_to(rows.astype(x.dtype), (len(x), *rows.shape[1:]))
        return mx.concatenate([rows, x[:, :, count:]], axis=2)


class PrefixCache:
    """Fake KV cache of a padded pass over whole sequences: nothing is stored."""

    offset = 0

    def __init__(self, prefix: Prefix) -> None:
        self._prefix = prefix

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> Any:
        """The call by which mlx-lm asks a cache for a mask."""
        return create_attention_mask(mx.zeros((1, n, 1)), None, window_size, return_array)

    def update_and_fetch(self, *new: mx.array) -> tuple[mx.array, ...]:
        """See mlx-lm's caches."""
        return self._prefix.put(*new)


class Prefixes:
    """The prefix in every block of a model; empty where none is trained."""

    def __init__(self, prefixes: Sequence[Prefix]) -> None:
        self._prefixes = prefixes
        self._by_module = {id(prefix.module): prefix for prefix in prefixes}

    def of(self, module: nn.Module, *new: mx.array) -> tuple[mx.array, ...]:
        """Keys and values (b, g, t, head) of sequences in this module, the prefix at their start.

        As they are where none is trained.
        """
        prefix = self._by_module.get(id(module))
        return new if prefix is None else prefix.put(*new)

    def options(self) -> dict[str, Any]:
        """Arguments of a padded pass besides its ids."""
        return {"cache": [PrefixCache(p) for p in self._prefixes]} if self._prefixes else {}

    def filled(self, model: nn.Module) -> list[Any] | None:
        """The model's own caches, holding the prefix; None where there is none."""
        if not self._prefixes or not self._prefixes[0].rows()[0].shape[2]:
            return None
        caches = make_prompt_cache(model)
        for cache, prefix in zip(caches, self._prefixes, strict=True):
            cache.update_and_fetch(*(rows.astype(_dtype(model)) for rows in prefix.rows()))
        return caches


def _dtype(model: nn.Module) -> mx.Dtype:
    return embedding_of(model)(mx.zeros((1, 1), mx.int32)).dtype


def add_virtual_tokens(
    model: nn.Module, stack: Sequence[nn.Module], setup: Setup, compute: mx.Dtype
) -> tuple[Trainable, Prefixes]:
    """Freeze a model and train virtual tokens in front of its sequences."""
    model.freeze()
    folder = ModelFolder(setup.folder, "")
    shapes = virtual_shapes(setup.adapter, folder)
    embedding, scale = embedding_of(model), _scale_behind(model, folder)
    rows, prefixes = np.zeros((0, 0), np.float32), []
    if PROMPT in shapes:
        holder: Any = nn.Module()
        holder.weight = mx.zeros(shapes[PROMPT][::-1])
        places: Places = {PROMPT: (holder, "weight")}
        vocabulary = mx.arange(int(folder.config["vocab_size"]))
        rows = scale * np.array(embedding(vocabulary).astype(mx.float32))
        intercept(embedding, _embed(lambda: holder.weight.T / scale))
    else:
        places = {}
        for block, module in enumerate(map(_attention, stack)):
            prefixes.append(Prefix(module, block, key_heads(folder)))
            for side in SIDES:
                name = prefix_name(block, side)
                setattr(module, _attribute(side), mx.zeros(shapes[name][::-1]))
                places[name] = (module, _attribute(side))
        intercept(embedding, _embed(None))
    trainable = Trainable(places, adapters=True, compute=compute)
    trainable.load(initial_virtual(shapes, setup.model.seed, rows))
    return trainable, Prefixes(prefixes)


def _attribute(side: str) -> str:
    return f"prefix_{side}"


def _attention(block: nn.Module) -> nn.Module:
    try:
        return attention_module(block)[0]
    except SaeError:
        raise ModelError(
            "fine_tune_type is prefix, but a block has no attention module of a known name: train "
            "prompt or lora, or use the torch backend"
        ) from None


def embedding_of(model: nn.Module) -> Any:
    """The layer that embeds token ids; ModelError where there is none of a known kind."""
    for path, module in model.named_modules():
        kind = isinstance(module, nn.Embedding | nn.QuantizedEmbedding)
        if kind and path.rpartition(".")[2] != "wpe":
            return module
    raise ModelError("this model has no embedding layer of a known kind: use the torch backend")


def _scale_behind(model: nn.Module, folder: ModelFolder) -> float:
    """What mlx-lm multiplies embeddings by behind the layer, where transformers does within it."""
    family = str(getattr(model, "model_type", ""))
    return float(folder.config["hidden_size"]) ** 0.5 if family.startswith("gemma") else 1.0


def _embed(prompt: Callable[[], mx.array] | None) -> Callable[..., mx.array]:
    def embed(inner: Callable[..., mx.array], module: nn.Module, tokens: mx.array) -> mx.array:
        """(b, t) -> (b, t, d)."""
        places = tokens.astype(mx.int64) - VIRTUAL_ID
        virtual = places >= 0
        x = inner(module, mx.where(virtual, 0, tokens))
        if prompt is None or not len(rows := prompt()):
            return x
        return mx.where(virtual[..., None], rows.astype(x.dtype)[mx.maximum(places, 0)], x)

    return embed
