"""Reading the activation at a hook, and checkpointing blocks, without renaming any weight.

A module is intercepted by giving it a subclass of its own class: its parameters keep their names,
and no other instance of the class changes.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn

from fpo_core.backend.base_tap import BaseTap
from fpo_core.sae.hook import Hook
from fpo_core.sae.taps import capture_all

_RANDOM: Any = mx.random.state
"""One array: the two halves of a 64-bit key."""


class Tap(BaseTap):
    """Captures the activation at a site of one block; see `BaseTap`."""

    def install(self) -> None:
        """Start intercepting, around whatever wraps the module by then."""
        intercept(self._module, self._call)

    def _call(
        self, inner: Callable[..., Any], module: nn.Module, x: mx.array, *args: Any, **kwargs: Any
    ) -> Any:
        if not self._reads_output:
            self.store(x)
            return inner(module, self.spliced(x).astype(x.dtype), *args, **kwargs)
        result = inner(module, x, *args, **kwargs)
        self.store(result)
        return self.spliced(result).astype(x.dtype)


class ColumnCut:
    """Cuts what a model's body hands to its head to some columns: the head computes no others.

    What stands between body and head (a tied embedding, a soft cap) stays the model's own.
    """

    def __init__(self, body: nn.Module) -> None:
        self._columns: slice | None = None
        intercept(body, self._call)

    def during(self, columns: slice, forward: Callable[[], mx.array]) -> mx.array:
        """Run `forward` with the head on these columns alone: (n, t, v) -> (n, columns, v)."""
        self._columns = columns
        try:
            return forward()
        finally:
            self._columns = None

    def _call(
        self, inner: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any
    ) -> mx.array:
        result = inner(module, *args, **kwargs)
        return result if self._columns is None else result[:, self._columns]


def tap_and_checkpoint(
    stack: list[nn.Module], hooks: Sequence[Hook], checkpoint: bool
) -> list[Tap]:
    """Tap the block of each hook, and checkpoint every block but the last, where asked."""
    taps = [Tap(stack[hook.layer], hook.site) for hook in hooks]
    # The last block's backward pass comes at once: recomputing it would save nothing.
    for block in stack[:-1] if checkpoint else []:
        _checkpoint_block(block, [tap for tap in taps if tap.block is block and tap.inside])
    # After the checkpoints, so that a tap at a block's ends wraps its checkpoint. A tap inside
    # lies within it either way.
    for tap in taps:
        tap.install()
    return taps


def _checkpoint_block(block: nn.Module, taps: list[Tap]) -> None:
    """Recompute this block in backward instead of storing its activations.

    mx.checkpoint differentiates only through explicit inputs and outputs of its function. So the
    trained weights and the block's input go in as arguments, and what taps inside the block
    capture comes out as results: gradients that took another way would be lost silently.
    """
    dropouts = (module for module in block.modules() if isinstance(module, nn.Dropout))
    draws = any(dropout._p_1 < 1 for dropout in dropouts)

    def call(inner: Callable[..., Any], module: nn.Module, x: mx.array, *args: Any, **kwargs: Any):
        # Which taps to read is decided now: when backward runs the block again, the captures of
        # the forward pass are over.
        active = [tap for tap in taps if tap.capturing]
        # Reading the key waits for the device: a step does so once, if blocks draw nothing.
        key = [int(part) for part in np.array(_RANDOM[0])] if draws and module.training else None

        def run(weights: dict[str, Any], x: mx.array) -> tuple[mx.array, tuple[mx.array, ...]]:
            # Dropout must draw the same mask again, and MLX does not restore the random state.
            if key is not None:
                mx.random.seed(key[0] << 32 | key[1])
            # Backward passes other arrays as weights. The block's own come back afterwards, or
            # tracers (and in full training half-precision copies) would stay in the model.
            originals = module.trainable_parameters()
            module.update(weights)
            try:
                return capture_all(active, lambda: inner(module, x, *args, **kwargs))
            finally:
                module.update(originals)

        result, captured = mx.checkpoint(run)(module.trainable_parameters(), x)
        for tap, value in zip(active, captured, strict=True):
            tap.store(value)
        return result

    intercept(block, call)


def intercept(module: nn.Module, call: Callable[..., Any], method: str = "__call__") -> None:
    """Route calls of this one module's method through `call(inner, module, ...)`."""
    original = type(module)
    inner = getattr(original, method)
    first = [*inspect.signature(inner).parameters][1]

    @functools.wraps(inner)  # with its signature, for one that intercepts this
    def routed(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not args and first in kwargs:  # GPT-J hands a block its input by name
            args = (kwargs.pop(first),)
        return call(inner, self, *args, **kwargs)

    module.__class__ = type(original.__name__, (original,), {method: routed})
