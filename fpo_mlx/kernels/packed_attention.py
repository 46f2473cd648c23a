"""Attention over one row of runs: completions see their prompt and themselves, nothing else.

A model's pass has one row of real tokens, (1, t, d). Only between the projections of an attention
module, where the model's own code runs, do they stand in two rectangles: roots, then branches.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm.models.base import create_attention_mask

from fpo_core.loss.packing import Rectangles, Row
from fpo_core.sae.tap_points import tap_point
from fpo_mlx import ops
from fpo_mlx.attention import Spread, own_attention
from fpo_mlx.hooks import intercept
from fpo_mlx.lora import LINEAR

Arrays = tuple[mx.array, ...]


@dataclass(frozen=True)
class _Mask:
    """What a model asked for as its mask; each rectangle makes its own of it."""

    return_array: bool
    window: int | None


class RowCache:
    """Takes the place of a model's key/value caches where a row passes: says how it lies."""

    offset = 0

    def __init__(self, row: Row, axes: int) -> None:
        lies = Rectangles.of(row.runs)
        self._lies, self._axes = lies, axes
        shapes = [lies.roots.shape, lies.branches.shape]
        self.shapes = shapes if lies.shared else shapes[:1]
        places = [lies.roots, lies.branches][: len(self.shapes)]
        self._places = [mx.array(place) for place in places]
        self._slots = mx.array(lies.slots)
        self._masks: dict[_Mask, list[Any]] = {}
        self.spread: Spread = {}

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> Any:
        """What mlx-lm asks a cache for; models hand it on as it is."""
        del n
        return _Mask(return_array, window_size)

    def masks(self, asked: _Mask) -> list[Any]:
        """The mask of each rectangle, those of branches with `axes` axes for heads."""
        if asked not in self._masks:
            like = mx.zeros((*self.shapes[0], 1))
            masks = [create_attention_mask(like, None, asked.window, asked.return_array)]
            seen = self._lies.visible(asked.window)
            shape = (len(seen), *[1] * self._axes, *seen.shape[1:])
            masks += [ops.asarray(seen.reshape(shape), like)]
            self._masks[asked] = masks
        return self._masks[asked]

    def caches(self) -> Iterator[Any]:
        """A cache for each rectangle of one block: branches find the keys of their roots there."""
        yield (roots := _Roots())
        yield _Branches(roots, self._lies)

    def expand(self, x: mx.array) -> list[mx.array]:
        """(1, t, m) -> (f, p, m) and (c, r, m), with zeros for padding."""
        function: Any = mx.custom_function(self._expand)
        function.vjp(lambda _primals, outer, _outputs: self._compact(*outer))
        return function(x)

    def compact(self, *rectangles: mx.array) -> mx.array:
        """The real tokens of the rectangles: (f, p, m) and (c, r, m) -> (1, t, m)."""
        function: Any = mx.custom_function(self._compact)
        function.vjp(lambda _primals, outer, _output: tuple(self._expand(outer)))
        return function(*rectangles)

    def _expand(self, x: mx.array) -> list[mx.array]:
        rows = mx.concatenate([x[0], mx.zeros_like(x[0, :1])])
        return [rows[place] for place in self._places]

    def _compact(self, *rectangles: mx.array) -> mx.array:
        rows = mx.concatenate([x.reshape(-1, x.shape[-1]) for x in rectangles])
        return rows[self._slots][None]


class _Roots:
    """Keeps the roots' keys and values, (f, heads, p, d) each."""

    offset = 0
    kept: Arrays = ()

    def update_and_fetch(self, *new: mx.array) -> Arrays:
        self.kept = new
        return new


class _Branches:
    """Puts the keys and values of each branch's prompt before its own: (c, heads, width + r, d)."""

    def __init__(self, roots: _Roots, lies: Rectangles) -> None:
        self.offset = mx.array(lies.prompts)
        self._roots, self._lies = roots, lies

    def update_and_fetch(self, *new: mx.array) -> Arrays:
        pairs = zip(self._roots.kept, new, strict=True)
        return tuple(mx.concatenate([self._prompts(old), own], axis=2) for old, own in pairs)

    def _prompts(self, old: mx.array) -> mx.array:
        prompts = old[: self._lies.shared, None, :, : self._lies.width]
        each = len(self._lies.prompts) // self._lies.shared
        repeated = mx.broadcast_to(prompts, (len(prompts), each, *prompts.shape[2:]))
        return repeated.reshape(-1, *prompts.shape[2:])


def pack_attention(stack: Sequence[nn.Module], *, keep: bool) -> None:
    """Have these blocks' attention take a row, wherever they are given a `RowCache`.

    `keep` says whether what attention weighs by is kept for backward, where it is our own.
    Raises SaeError where a block has no output projection of a known name.
    """
    for block in stack:
        modules = dict(block.named_modules())
        path, _, output = tap_point("z", modules.__contains__).path.rpartition(".")
        intercept(modules[path], functools.partial(_attend, output, keep))


def _attend(
    output: str,
    keep: bool,
    inner: Callable[..., Any],
    module: Any,
    x: mx.array,
    *args: Any,
    **kw: Any,
) -> mx.array:
    """The projections on the row, once; what is between them on each rectangle."""
    row = next((a for a in (*args, *kw.values()) if isinstance(a, RowCache)), None)
    if row is None:
        return inner(module, x, *args, **kw)
    # Only their shapes are read: the projections answer with what they say of the row.
    empty = [mx.zeros((*shape, x.shape[-1]), x.dtype) for shape in row.shapes]
    parts = {name: part for name, part in module.items() if isinstance(part, LINEAR)}
    answers = {name: _answer(part, x, empty, row) for name, part in parts.items()}
    with (
        _replaced(module, answers | {output: lambda made: made}),
        own_attention(keep=keep, spread=row.spread),
    ):
        made: list[mx.array] = []
        for number, (nothing, cache) in enumerate(zip(empty, row.caches(), strict=False)):
            here = functools.partial(_here, row, cache, number)
            own = {name: here(value) for name, value in kw.items()}
            made.append(inner(module, nothing, *map(here, args), **own))
    return module[output](row.compact(*made))


def _here(row: RowCache, cache: Any, number: int, value: Any) -> Any:
    """An argument of a block as one rectangle has it."""
    if value is row:
        return cache
    return row.masks(value)[number] if isinstance(value, _Mask) else value


def _answer(
    part: Callable[..., mx.array], x: mx.array, empty: Sequence[mx.array], row: RowCache
) -> Callable[[mx.array], mx.array]:
    """A projection that knows the row behind the rectangles that it is given."""
    expanded = functools.cache(lambda: row.expand(part(x)))

    def answer(given: mx.array) -> mx.array:
        number = next((i for i, nothing in enumerate(empty) if given is nothing), None)
        return part(given) if number is None else expanded()[number]

    return answer


@contextlib.contextmanager
def _replaced(module: nn.Module, parts: dict[str, Any]) -> Iterator[None]:
    mine = {name: module[name] for name in parts}
    dict.update(module, parts)
    try:
        yield
    finally:
        dict.update(module, mine)


class RowPositions:
    """Has a learned embedding of positions, as GPT-2's, look up those of a row."""

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
