"""Pooled features whose forward pass is streamed and whose gradient touches few columns."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fpo_core.loss.packing import Scored, chunk_rows
from fpo_core.sae.sae import Sae
from fpo_core.sae.streaming import encode_columns, gradient_columns, stream_pool
from fpo_torch import ops

_COPIES = 4
"""Pre-activations, features and masks of one chunk live at once."""


def pooled_features(
    budget: int,
    sae: Sae,
    h: Tensor,
    scored: Scored,
    shares: Tensor,
    *,
    rows: Sequence[int],
    slots: int,
) -> Tensor:
    """c̄ of every sequence, (n, d_sae), from the activations at its tokens, h (N, d_in), and the
    share of each token in each sequence, (n, N).

    Gradients flow to the sequences `rows` alone, each through at most `slots` features. At most
    `budget` MiB of features exist at once.
    """
    chunk = chunk_rows(budget, sae.d_sae, _COPIES)
    bounds = [(row, *scored.bounds[row : row + 2].tolist()) for row in rows]
    return _Pooled.apply(h, sae, shares, chunk, bounds, slots)


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        sae: Sae,
        shares: Tensor,
        chunk: int,
        bounds: list[tuple[int, int, int]],
        slots: int,
    ) -> Tensor:
        pooled, winners = stream_pool(ops, sae, h, shares, chunk, backward=ctx.needs_input_grad[0])
        ctx.save_for_backward(h, shares, winners)
        ctx.sae, ctx.bounds, ctx.slots = sae, bounds, slots
        return pooled

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = grad_outputs
        h, shares, winners = ctx.saved_tensors
        total = torch.zeros_like(h)
        for row, start, end in ctx.bounds:
            columns = gradient_columns(ops, gradient[row], ctx.slots)
            weights = shares[row, start:end, None] * gradient[row, columns]
            with torch.enable_grad():
                own = h[start:end].detach().requires_grad_()
                active = None if winners is None else winners[start:end]
                features = encode_columns(ops, ctx.sae, columns, own, active)
                total[start:end] = torch.autograd.grad(features, own, weights)[0]
        return total, None, None, None, None, None
