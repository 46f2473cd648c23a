"""Whole blocks under torch.compile, on GPUs, where a step otherwise waits for Python.

Dynamo then sees through the adapters and MLPs of a block, so `kernels.lora` and `kernels.mlp` hand
it plain operations: inductor finds the same savings by itself.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from fpo_torch.compiled import any_length
from fpo_torch.forward_patch import patched


class CompiledBlocks:
    """Replaces the forward of blocks by a compiled one wherever gradients are computed.

    Blocks of one class share their code object, so each class is compiled once, for rows of any
    length.
    """

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        run = torch.compile(_run)
        self._forwards = [(block, _forward(run, block)) for block in blocks]

    def on(self) -> AbstractContextManager[None]:
        """Within, forward and backward passes of these blocks are compiled."""
        return patched(self._forwards)


def _run(block: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    # The class's forward: the instance's is the patch that calls this.
    return type(block).forward(block, *args, **kwargs)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Those among the values, and in tuples of them, as rotary tables are."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple):
            yield from _tensors(value)


def _forward(run: Callable[..., Tensor], block: nn.Module) -> Callable[..., Tensor]:
    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(1, t, d) -> (1, t, d)."""
        if not torch.is_grad_enabled():
            return _run(block, x, *args, **kwargs)
        if not x.requires_grad:
            # Dynamo guards on requires_grad: the first block alone would be compiled once more.
            x = x.detach().requires_grad_()
        # Besides x, rotary tables and positions have the row's length as their second axis.
        for tensor in _tensors((x, *args, *kwargs.values())):
            if tensor.shape[1:2] == x.shape[1:2]:
                any_length(tensor, 1)
        return run(block, x, *args, **kwargs)

    return forward
