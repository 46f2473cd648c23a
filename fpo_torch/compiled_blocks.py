"""Blocks compiled whole, on GPUs: a step then waits for the device, not for Python."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from fpo_torch.compiled import any_length
from fpo_torch.forward_patch import swapped


class CompiledBlocks:
    """Swaps the forward of blocks for a compiled one, while it is on and gradients are taken.

    Blocks of one kind share their code, so it is compiled once for each kind, for rows of any
    length.
    """

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        run = torch.compile(_run)
        self._forwards = [(block, _forward(run, block)) for block in blocks]

    def on(self) -> AbstractContextManager[None]:
        """Within, forward and backward passes of these blocks are compiled."""
        return swapped(self._forwards)


def _run(block: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    return type(block).forward(block, *args, **kwargs)


def _forward(run: Callable[..., Tensor], block: nn.Module) -> Callable[..., Tensor]:
    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(1, t, d) -> (1, t, d)."""
        if not torch.is_grad_enabled():
            return _run(block, x, *args, **kwargs)
        if not x.requires_grad:  # the first block would be a kind of its own
            x = x.detach().requires_grad_()
        for each in tree_leaves((x, args, kwargs)):
            if isinstance(each, Tensor) and each.shape[1:2] == x.shape[1:2]:
                any_length(each, 1)
        return run(block, x, *args, **kwargs)

    return forward
