"""Reading the activation at a hook, and checkpointing blocks, without renaming any weight.

A module is intercepted by giving it a subclass of its own class: its parameters keep their names,
and no other instance of the class changes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn

from fpo_core.sae.hook import Hook
from fpo_core.sae.tap_points import tap_point
from fpo_core.sae.taps import capture_all

_RANDOM: Any = mx.random.state
"""One array: the two halves of a 64-bit key."""


@dataclass
class Switch:
    """Whether what stands in for layers is in use."""

    on: bool = False


class Tap:
    """Reads the activation at a site of one block, during a forward pass that it watches."""

    def __init__(self, block: nn.Module, site: str) -> None:
        modules = dict(block.named_modules())
        point = tap_point(site, modules.__contains__)
        self.inside = point.path != ""
        """Whether the place is inside the block, not at its ends."""
        self.value: mx.array | None = None
        """What passed there last, while watching."""
        self.watching = False
        self._module, self._reads_output = modules[point.path], point.end == "output"

    def install(self) -> None:
        """Start intercepting; around whatever the module is wrapped in by then."""
        intercept(self._module, self._reader(self._reads_output))

    def capture(self, forward: Callable[[], Any]) -> tuple[Any, mx.array]:
        """Run `forward`; return its result and the activation of that pass, (n, t, d_in).

        A watch may lie inside another: a checkpoint watches its block, again when it repeats it.
        """
        before, self.watching, self.value = self.watching, True, None
        try:
            result = forward()
        finally:
            self.watching = before
        value, self.value = self.value, None
        assert value is not None, "no forward pass went through the hook"
        return result, value

    def _reader(self, output: bool) -> Callable[..., Any]:
        def call(inner: Callable[..., Any], module: nn.Module, x: mx.array, *args: Any, **kw: Any):
            result = inner(module, x, *args, **kw)
            if self.watching:
                self.value = result if output else x
            return result

        return call


class ColumnCut:
    """Keeps some columns of what a model's body hands to its head, so the head computes no others.

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
        self, inner: Callable[..., Any], module: nn.Module, *args: Any, **kw: Any
    ) -> mx.array:
        result = inner(module, *args, **kw)
        return result if self._columns is None else result[:, self._columns]


def tap_and_checkpoint(
    stack: list[nn.Module], hooks: Sequence[Hook], checkpoint: bool
) -> list[Tap]:
    """Tap the block of each hook, and checkpoint every block but the last, where asked.

    The last one's backward pass comes at once: to forget what it needs would save nothing.
    A tap inside a block must sit inside its checkpoint, a tap at its ends around it.
    """
    taps = [Tap(stack[hook.layer], hook.site) for hook in hooks]
    for number, block in enumerate(stack[:-1] if checkpoint else []):
        own = [tap for tap, hook in zip(taps, hooks, strict=True) if hook.layer == number]
        _checkpoint_block(block, [tap for tap in own if tap.inside])
    for tap in taps:
        tap.install()
    return taps


def _checkpoint_block(block: nn.Module, taps: list[Tap]) -> None:
    """Recompute this block in backward instead of keeping its activations.

    Trained weights, the input and values tapped inside are explicit inputs and outputs of the
    checkpoint: what crosses it any other way loses its gradient.
    """

    def call(inner: Callable[..., Any], module: nn.Module, x: mx.array, *args: Any, **kw: Any):
        inside = [tap for tap in taps if tap.watching]
        high, low = (int(part) for part in np.array(_RANDOM[0]))

        def run(weights: dict[str, Any], x: mx.array) -> tuple[mx.array, tuple[mx.array, ...]]:
            # Backward runs this again, with other arrays and after the outer watch is over. The
            # state that dropout draws from is the one thing MLX does not put back by itself.
            mx.random.seed(high << 32 | low)
            mine = module.trainable_parameters()
            module.update(weights)
            try:
                return capture_all(inside, lambda: inner(module, x, *args, **kw))
            finally:
                module.update(mine)

        result, tapped = mx.checkpoint(run)(module.trainable_parameters(), x)
        for tap, value in zip(inside, tapped, strict=True):
            tap.value = value
        return result

    intercept(block, call)


def intercept(module: nn.Module, call: Callable[..., Any], method: str = "__call__") -> None:
    """Route calls of this one module's method through `call(inner, module, ...)`."""
    original = type(module)
    inner = getattr(original, method)
    module.__class__ = type(
        original.__name__,
        (original,),
        {method: lambda self, *args, **kw: call(inner, self, *args, **kw)},
    )
