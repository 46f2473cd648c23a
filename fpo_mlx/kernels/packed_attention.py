"""Attention over one packed row: a completion sees its prompt and itself, nothing else.

The model's pass runs over one row of real tokens, (1, t, d), in which a shared prompt stands once,
so norms, projections and MLPs do no work twice. mlx-lm has no attention function to replace, and
each family does its own things between the projections (rotary positions, norms of queries, soft
caps, sliding windows). So each attention module runs its own code twice per pass, on rectangles:

    row         prompt A, chosen A, rejected A, prompt B, …          (1, t, d)
    q, k, v     the module's projections, once, on the row           (1, t, m)
    roots       prompts, and sequences without a shared prompt       (f, p, m), padded on the right
    branches    completions that continue a root's prompt            (c, r, m), padded on the right
    attention   the module's own code on roots, then on branches; a fake KV cache gives branches
                the keys and values of their prompts, and offsets for rotary positions
    output      back to the row, then the module's output projection, once

Saves for backward what MLX's autodiff saves of attention, and of the gathers nothing: each one's
gradient is the other.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm.models.base import create_attention_mask

from fpo_core.loss.packing import Rectangles, Row
from fpo_mlx import ops
from fpo_mlx.attention import attention_module
from fpo_mlx.hooks import intercept
from fpo_mlx.lora import LINEAR

Arrays = tuple[mx.array, ...]
Windows = Sequence[int | None]
Put = Callable[..., Arrays]
"""(attention module, keys, values) -> keys and values with a trained prefix at their start."""


@dataclass(frozen=True)
class _MaskRequest:
    """What a model asked for as its mask; each rectangle answers with a mask of its own."""

    return_array: bool
    window: int | None


class RowCache:
    """Fake KV cache that carries the packing layout of the row into each attention module."""

    offset = 0

    def __init__(self, row: Row, axes: int, put: Put) -> None:
        layout = Rectangles.of(row.runs)
        self._layout, self._axes, self._put = layout, axes, put
        rectangles = [layout.roots, layout.branches] if layout.fans else [layout.roots]
        self.shapes = [rectangle.shape for rectangle in rectangles]
        self._indices = [mx.array(rectangle) for rectangle in rectangles]
        self._slots = mx.array(layout.slots)
        self._masks: dict[_MaskRequest, list[Any]] = {}

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> Any:
        """The call by which mlx-lm asks a cache for a mask; models pass the answer on unread."""
        del n
        return _MaskRequest(return_array, window_size)

    def masks(self, request: _MaskRequest) -> list[Any]:
        """The mask of each rectangle, that of the branches with `axes` axes for heads."""
        if request not in self._masks:
            like = mx.zeros((*self.shapes[0], 1))
            masks = [create_attention_mask(like, None, request.window, request.return_array)]
            visible = self._layout.visible(request.window)
            shape = (len(visible), *[1] * self._axes, *visible.shape[1:])
            masks += [ops.asarray(visible.reshape(shape), like)]
            self._masks[request] = masks
        return self._masks[request]

    def caches(self, module: nn.Module) -> Iterator[Any]:
        """A cache for each rectangle in an attention module; the branches' reads the roots'."""
        yield (roots := _RootCache(functools.partial(self._put, module)))
        yield _BranchCache(roots, self._layout)

    def expand(self, x: mx.array) -> list[mx.array]:
        """Row to rectangles, (1, t, m) -> (f, p, m) and (c, r, m), with zeros for padding."""
        # Each token stands in one slot, so the gradient of this gather is the other gather.
        # Autodiff would scatter with atomic additions instead.
        function: Any = mx.custom_function(self._expand)
        function.vjp(lambda _row, gradients, _rectangles: self._compact(*gradients))
        return function(x)

    def compact(self, *rectangles: mx.array) -> mx.array:
        """Rectangles to row, without the padding: (f, p, m) and (c, r, m) -> (1, t, m)."""
        function: Any = mx.custom_function(self._compact)
        function.vjp(lambda _rectangles, gradient, _row: tuple(self._expand(gradient)))
        return function(*rectangles)

    def _expand(self, x: mx.array) -> list[mx.array]:
        # Padding slots hold the index t, which is the row of zeros appended here.
        padded = mx.concatenate([x[0], mx.zeros_like(x[0, :1])])
        return [padded[indices] for indices in self._indices]

    def _compact(self, *rectangles: mx.array) -> mx.array:
        flat = mx.concatenate([x.reshape(-1, x.shape[-1]) for x in rectangles])
        return flat[self._slots][None]


class _RootCache:
    """Stores the keys and values of the roots, (f, heads, p, d) each."""

    rectangle = "roots"
    offset = 0
    stored: Arrays = ()

    def __init__(self, put: Callable[..., Arrays]) -> None:
        self._put = put

    def update_and_fetch(self, *new: mx.array) -> Arrays:
        self.stored = self._put(*new)
        return self.stored


class _BranchCache:
    """Prepends the prompt's keys and values to each branch: (c, heads, r, d) -> (…, width + r, d).

    `offset` (c,) is each prompt's length: models rotate a branch by its positions from there.
    """

    rectangle = "branches"

    def __init__(self, roots: _RootCache, layout: Rectangles) -> None:
        self.offset = mx.array(layout.prompts)
        self._roots, self._layout = roots, layout

    def update_and_fetch(self, *new: mx.array) -> Arrays:
        pairs = zip(self._roots.stored, new, strict=True)
        return tuple(mx.concatenate([self._prompts(old), x], axis=2) for old, x in pairs)

    def _prompts(self, old: mx.array) -> mx.array:
        """(f, heads, p, d) of the roots -> (c, heads, width, d), a prompt for each branch."""
        parts: list[mx.array] = []
        at = 0
        # A broadcast view serves as the gather of prompts that have as many branches each: its
        # gradient is a sum, where that of a gather would scatter with atomic additions.
        for fan, equal in itertools.groupby(self._layout.fans):
            end = at + len(list(equal))
            prompts = old[at:end, None, :, : self._layout.width]
            repeated = mx.broadcast_to(prompts, (len(prompts), fan, *prompts.shape[2:]))
            parts.append(repeated.reshape(-1, *prompts.shape[2:]))
            at = end
        return parts[0] if len(parts) == 1 else mx.concatenate(parts)


def pack_attention(stack: Sequence[nn.Module], windows: Windows | None) -> None:
    """Have the attention modules of these blocks take a row when they are given a `RowCache`.

    `windows` are those of the blocks, None where the model's own code knows them. Raises SaeError
    where a block has no output projection of a known name.
    """
    for number, block in enumerate(stack):
        module, output = attention_module(block)
        narrowed = {} if windows is None else {"window": windows[number]}
        intercept(module, functools.partial(_attend, output, narrowed))


def _attend(
    output: str,
    narrowed: dict[str, Any],
    inner: Callable[..., Any],
    module: Any,
    x: mx.array,
    *args: Any,
    **kwargs: Any,
) -> mx.array:
    """An attention module on a row: (1, t, d) -> (1, t, d), given the row's cache."""
    row = next((a for a in (*args, *kwargs.values()) if isinstance(a, RowCache)), None)
    if row is None:
        return inner(module, x, *args, **kwargs)
    # Placeholder inputs: the q/k/v projections return precomputed slices, so only these shapes
    # matter to the module's own code.
    placeholders = [mx.zeros((*shape, x.shape[-1]), x.dtype) for shape in row.shapes]
    layers = {name: layer for name, layer in module.items() if isinstance(layer, LINEAR)}
    stand_ins = {name: _projection(layer, x, placeholders, row) for name, layer in layers.items()}
    results: list[mx.array] = []
    # The output projection waits: run on the compacted row below, it sees no padding.
    with _replaced(module, stand_ins | {output: lambda heads: heads}):
        for number, cache in zip(range(len(row.shapes)), row.caches(module), strict=False):
            local = functools.partial(_argument, row, cache, number, narrowed)
            options = {name: local(value) for name, value in kwargs.items()}
            results.append(inner(module, placeholders[number], *map(local, args), **options))
    return module[output](row.compact(*results))


def _argument(row: RowCache, cache: Any, number: int, narrowed: dict[str, Any], value: Any) -> Any:
    """An argument of the module as the rectangle of this number takes it."""
    if value is row:
        return cache
    if not isinstance(value, _MaskRequest):
        return value
    return row.masks(dataclasses.replace(value, **narrowed))[number]


def _projection(
    layer: Callable[..., mx.array], x: mx.array, placeholders: Sequence[mx.array], row: RowCache
) -> Callable[[mx.array], mx.array]:
    """A stand-in for a projection: for a placeholder it returns that rectangle's part of layer(x).

    Other inputs go through the layer: a family may project what is not its module's input.
    """
    expanded = functools.cache(lambda: row.expand(layer(x)))  # once, for both rectangles

    def project(h: mx.array) -> mx.array:
        number = next((i for i, placeholder in enumerate(placeholders) if h is placeholder), None)
        return layer(h) if number is None else expanded()[number]

    return project


@contextlib.contextmanager
def _replaced(module: nn.Module, layers: dict[str, Any]) -> Iterator[None]:
    """Within, the module holds these layers. Modules are dictionaries: no weight is moved."""
    originals = {name: module[name] for name in layers}
    # `dict.update` because nn.Module's own takes nested parameters alone.
    dict.update(module, layers)
    try:
        yield
    finally:
        dict.update(module, originals)


class RowPositions:
    """Makes learned position embeddings, as GPT-2's, look up the positions of a row."""

    def __init__(self, model: nn.Module) -> None:
        self._positions: mx.array | None = None
        for path, module in model.named_modules():
            if path.rpartition(".")[2] == "wpe":
                intercept(module, self._embed)

    @contextlib.contextmanager
    def of(self, row: Row) -> Iterator[None]:
        """Within, the model's pass is over this row."""
        self._positions = mx.array(row.positions)
        try:
            yield
        finally:
            self._positions = None

    def _embed(self, inner: Callable[..., Any], module: nn.Module, x: mx.array) -> mx.array:
        return inner(module, x if self._positions is None else self._positions)
