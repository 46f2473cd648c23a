"""Pooled SAE features without the (N, d_sae) array of features, forward or backward.

Shapes: activations h (N, d_in) at the scored tokens and shares (n, N), the weight of each token in
each sequence -> c̄ = shares @ encode(h), (n, d_sae).

Forward encodes a chunk of tokens at a time and adds its share to c̄. Saved: h, shares and, where k
features are active at each token, their indices (N, k). D's gradient by c̄ is not zero in at most
2k columns, the union of both top k, and in half of the sequences, so backward encodes those columns
at those tokens again and differentiates that.

It exists because features are wide: 600 tokens of 65,536 features take 157 MB, autograd would save
several such arrays, and a dense backward costs 2 N · d_in · d_sae FLOPs where this costs next to
none.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fpo_core.loss.packing import Scored, chunk_rows
from fpo_core.sae.sae import Sae
from fpo_core.sae.streaming import encode_columns, gradient_columns, stream_pool
from fpo_torch import ops

_COPIES = 4
"""Arrays of a chunk's features that live at once: pre-activations, features, masks."""


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
    """c̄ (n, d_sae) from h (N, d_in) and shares (n, N); `budget` MiB of features at once at most.

    Gradients flow to the sequences `rows` alone, each through at most `slots` features.
    """
    chunk = chunk_rows(budget, sae.d_sae, _COPIES)
    bounds = [(row, *scored.spans[row].tolist()) for row in rows]
    return _Pooled.apply(h, sae, shares, chunk, bounds, slots)


class _Pooled(torch.autograd.Function):
    """c̄ (n, d_sae); differentiable in h alone.

    chunk: tokens encoded at a time.
    bounds: (row, start, end) of each sequence with a gradient: its row of c̄, its tokens in h.
    slots: upper bound on the non-zeros in a row of c̄'s gradient.
    """

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
        """The gradient of h (N, d_in), from that of c̄ (n, d_sae)."""
        (gradient,) = grad_outputs
        h, shares, winners = ctx.saved_tensors
        to_h = torch.zeros_like(h)
        for row, start, end in ctx.bounds:
            columns = gradient_columns(ops, gradient[row], ctx.slots)
            # The gradient of the features (end − start, columns): c̄'s, shared out over the tokens.
            to_features = shares[row, start:end, None] * gradient[row, columns]
            with torch.enable_grad():
                tokens = h[start:end].detach().requires_grad_()
                active = None if winners is None else winners[start:end]
                features = encode_columns(ops, ctx.sae, columns, tokens, active)
                # Sequences may hold the same tokens.
                to_h[start:end] += torch.autograd.grad(features, tokens, to_features)[0]
        return to_h, None, None, None, None, None
