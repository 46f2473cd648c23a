"""`TokenScores`: what a model makes of each scored token, for people to look at.

Losses and metrics need sums alone (`fpo_core.loss.scores`); a report shows single tokens, and which
features fire where. Features are encoded a chunk of tokens at a time, and only their means and
peaks are kept.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fpo_core.arrays.ops import Array, Ops
from fpo_core.data.batches import Batch
from fpo_core.loss.packing import Scored, chunk_rows
from fpo_core.sae.sae import Sae

_BUDGET = 64
"""MiB of features that exist at once."""
_COPIES = 6
"""Arrays of a chunk's features that live at once."""


@dataclass(frozen=True)
class TokenScores:
    """N scored tokens of n sequences, one sequence after the other; None for what was not asked."""

    logps: Array
    """(N,) log π of the token, in nats."""
    pooled: Array | None = None
    """(n, d_sae) mean feature c̄ over a sequence's tokens that count."""
    peaks: Array | None = None
    """(n, d_sae) the largest magnitude of a feature at any token of a sequence that counts."""
    columns: Array | None = None
    """(N, c) the features asked for, 0 at tokens that do not count."""

    def map(self, convert: Callable[[Array], Array]) -> Self:
        """Every field that is there passed through `convert`."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return type(self)(**{k: None if v is None else convert(v) for k, v in fields.items()})


def token_bounds(batch: Batch) -> np.ndarray:
    """(n + 1,) where each sequence's tokens begin in `TokenScores`, and where the last ends."""
    counts = np.maximum(batch.lengths - np.maximum(batch.prompt_lengths, 1), 0)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def scored_in_rectangle(batch: Batch, untrained: Sequence[int]) -> Scored:
    """The scored tokens of a padded batch by their index in its flattened (n · t,) tokens."""
    starts = np.arange(len(batch.tokens)) * batch.width
    return Scored.of(batch, untrained, starts, starts + batch.prompt_lengths)


def tokens_with_features(
    xp: Ops,
    scored: Scored,
    logps: Array,
    features: Sequence[tuple[Sae, Array]],
    columns: np.ndarray | None = None,
) -> TokenScores:
    """Scores of tokens with log-probabilities (N,) and autoencoders' activations there, (N, d_in).

    With `columns`, indices into the features of all autoencoders, these alone, at every token;
    without, means and peaks of all of them.
    """
    if not features:
        return TokenScores(logps)
    if columns is not None:
        return TokenScores(logps, columns=_columns(xp, scored, features, columns))
    parts = [_pooled_and_peaks(xp, sae, h, scored) for sae, h in features]
    pooled, peaks = (xp.concatenate(list(arrays), 1) for arrays in zip(*parts, strict=True))
    return TokenScores(logps, pooled, peaks)


def _pooled_and_peaks(xp: Ops, sae: Sae, h: Array, scored: Scored) -> tuple[Array, Array]:
    """Means and largest magnitudes of every feature in n sequences, (n, d_sae) each."""
    mask, shares = (xp.asarray(x, h) for x in (scored.feature_mask, scored.shares))
    zero = h[:1, :1] * 0.0 + xp.asarray(np.zeros(sae.d_sae, np.float32), h)
    count = len(scored.spans)
    pooled: Any = None
    peaks: list[Any] = [zero] * count
    for at, end, values in _chunks(xp, sae, h):
        part = shares[:, at:end] @ values
        pooled = part if pooled is None else pooled + part
        size = abs(values) * mask[at:end, None]
        for row in range(count):
            start, stop = scored.spans[row]
            first, last = max(start, at) - at, min(stop, end) - at
            if first < last:
                high = xp.largest(size[int(first) : int(last)], 0)[None]
                peaks[row] = xp.where(high > peaks[row], high, peaks[row])
    if pooled is None:
        pooled = xp.concatenate([zero] * count, 0)
    return pooled, xp.concatenate(peaks, 0)


def _columns(
    xp: Ops, scored: Scored, features: Sequence[tuple[Sae, Array]], columns: np.ndarray
) -> Array:
    """(N, c) the features at some columns of all autoencoders' together."""
    mask = xp.asarray(scored.feature_mask, features[0][1])
    picked, start = [], 0
    order: list[np.ndarray] = []
    for sae, h in features:
        at = np.flatnonzero((columns >= start) & (columns < start + sae.d_sae))
        index = xp.asarray(columns[at] - start, h)
        chunks = [values[:, index] for _, _, values in _chunks(xp, sae, h)]
        picked.append(xp.concatenate(chunks, 0))
        order.append(at)
        start += sae.d_sae
    back = xp.asarray(np.argsort(np.concatenate(order), kind="stable"), mask)
    return xp.concatenate(picked, 1)[:, back] * mask[:, None]


def _chunks(xp: Ops, sae: Sae, h: Array) -> Any:
    """First token, last + 1, and features (chunk, d_sae) of a few tokens at a time."""
    size = chunk_rows(_BUDGET, sae.d_sae, _COPIES)
    for at in range(0, h.shape[0], size):
        end = min(at + size, h.shape[0])
        yield at, end, sae.encode(xp, h[at:end])
