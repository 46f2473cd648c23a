"""Pooled features of an autoencoder: a streamed forward pass, a gradient through few columns.

Computes c̄ of n sequences, (n, d_sae), from the activations at their N tokens, (N, d_in), without
ever holding (N, d_sae) features: d_sae is many times d_in. Saves the activations, and for topk
each token's choice of features. Backward re-encodes only the rows and columns that D compares.
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from fpo_core.loss.packing import Scored, chunk_rows
from fpo_core.sae.sae import Sae
from fpo_core.sae.streaming import encode_columns, gradient_columns, stream_pool
from fpo_mlx import ops

_COPIES = 4
"""Pre-activations, features and masks of one chunk live at once."""


def pooled_features(
    budget: int,
    sae: Sae,
    h: mx.array,
    scored: Scored,
    shares: mx.array,
    *,
    rows: Sequence[int],
    slots: int,
) -> mx.array:
    """c̄ of every sequence, (n, d_sae), from the activations at its tokens, h (N, d_in), and the
    share of each token in each sequence, (n, N).

    Gradients flow to the sequences `rows` alone, each through at most `slots` features. At most
    `budget` MiB of features exist at once.
    """
    chunk = chunk_rows(budget, sae.d_sae, _COPIES)

    def forward(h: mx.array) -> list[mx.array]:
        pooled, winners = stream_pool(ops, sae, h, shares, chunk)
        return [pooled] if winners is None else [pooled, winners]

    def backward(h: mx.array, cotangents: Any, outputs: Any) -> mx.array:
        # `cotangents[0]` is the loss's gradient by c̄, (n, d_sae); `outputs[1]`, where there is
        # one, the saved choice of topk.
        spans = [(start, end) for start, end in scored.spans.tolist() if start < end]
        parts = {span: mx.zeros_like(h[slice(*span)]) for span in sorted(set(spans))}
        for row in rows:
            start, end = scored.spans[row].tolist()
            if start == end:
                continue
            tokens = h[start:end]
            gradient = cotangents[0][row]
            columns = gradient_columns(ops, gradient, slots)
            weights = shares[row, start:end][:, None] * gradient[columns]
            winners = outputs[1][start:end] if len(outputs) > 1 else None
            gradients = mx.vjp(_encoder(sae, columns, winners), [tokens], [weights])[1]
            # Sequences may hold the same tokens.
            parts[start, end] = parts[start, end] + gradients[0]
        return mx.concatenate(list(parts.values())) if parts else mx.zeros_like(h)

    function = mx.custom_function(forward)
    function.vjp(backward)
    outputs: Any = function(h)
    return outputs[0]


def _encoder(sae: Sae, columns: mx.array, winners: mx.array | None) -> Any:
    """h (t, d_in) -> its features at some columns; bound here, since vjp runs it lazily."""
    return lambda h: encode_columns(ops, sae, columns, h, winners)
