"""Blocks compiled whole, on GPUs: a step then waits for the device, not for Python."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from fpo_torch.swapped import swapped


class CompiledBlocks:
    """Swaps the forward of blocks for a compiled one, while it is on and gradients are taken.

    Blocks of one kind share their code, so it is compiled once for each kind and for the first
    block, whose input needs no gradient; then once more, for any length of a row.
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
    def forward(*args: Any, **kwargs: Any) -> Tensor:
        return (run if torch.is_grad_enabled() else _run)(block, *args, **kwargs)

    return forward
