"""What a model loses when an autoencoder's reconstruction takes the place of its activations."""

from collections.abc import Sequence

import numpy as np

from fpo_core.arrays.ops import Array, Ops
from fpo_core.events import Sink, progress, silent
from fpo_core.sae.activation_reader import ActivationReader, Splice
from fpo_core.sae.explained_variance import OUTLIER, Recovered, text_batches
from fpo_core.sae.taps import Features

MOST_TOKENS = 8_192
"""Tokens read for this, of the shortest and the longest texts alike: each takes three passes."""
_TOKENS, _POSITIONS = 512, 128
"""Tokens of a pass, and of one softmax over the vocabulary, at most."""


def measure_splice(
    reader: ActivationReader,
    features: Features,
    rows: Sequence[Sequence[int]],
    emit: Sink = silent,
) -> Recovered | None:
    """Splice an autoencoder into a whole model on rows of ids; None where no row has two tokens."""
    batches = list(text_batches(sorted(_sample(rows), key=len), _TOKENS))
    sums = np.zeros(5)
    splicer = _Splicer(reader, features)
    for number, (tokens, lengths) in enumerate(batches, 1):
        sums += splicer.measure(tokens, lengths)
        progress(emit, "logits: batch", number, len(batches))
    if not sums[0]:
        return None
    count, *totals = sums.tolist()
    return Recovered(int(count), *(total / count for total in totals))


def _sample(rows: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    usable, total = [row for row in rows if len(row) > 1], 0
    share = max(1, round(sum(map(len, usable)) / MOST_TOKENS))
    chosen = []
    for row in usable[::share]:
        if total + len(row) > MOST_TOKENS and chosen:
            break
        total += len(row)
        chosen.append(row)
    return chosen


class _Splicer:
    """Passes of one model with one autoencoder in it."""

    def __init__(self, reader: ActivationReader, features: Features) -> None:
        self._reader, self._features = reader, features
        self._sae = features.single.sae
        self._limit: float | None = None

    def measure(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Tokens and sums of the four measurements, (5,), of a padded batch."""
        xp = self._reader.ops
        trained = np.arange(tokens.shape[1]) < lengths[:, None]
        trained &= ~np.isin(tokens, self._features.untrained)
        scored = (np.arange(1, tokens.shape[1]) < lengths[:, None]).astype(np.float32)
        clean = self._reader.logits(tokens, self._recording(trained))
        spliced = self._reader.logits(tokens, self._replacing(trained, zero=False))
        losses = [_losses(xp, logits, tokens, scored, self._reader) for logits in (clean, spliced)]
        kl = _divergence(xp, clean, spliced, scored, self._reader)
        del spliced
        zero = self._reader.logits(tokens, self._replacing(trained, zero=True))
        losses.append(_losses(xp, zero, tokens, scored, self._reader))
        return np.array([scored.sum(), *losses, kl])

    def _recording(self, trained: np.ndarray) -> Splice:
        """Changes nothing; the first batch's norms say which tokens are outliers."""

        def record(h: Array) -> Array:
            if self._limit is None:
                norms = np.linalg.norm(self._reader.numpy(h), axis=-1)[trained]
                self._limit = OUTLIER * float(np.median(norms)) if len(norms) else np.inf
            return h

        return record

    def _replacing(self, trained: np.ndarray, *, zero: bool) -> Splice:
        def replace(h: Array) -> Array:
            xp = self._reader.ops
            x = xp.as_float(h)
            if isinstance(self._sae.W_enc, np.ndarray):
                self._sae = self._sae.to(xp, x)
            inlier = (x * x).sum(-1) <= float(self._limit or np.inf) ** 2
            here = xp.asarray(trained, x) & inlier
            other = x * 0.0 if zero else self._sae.reconstruct(xp, x)
            return xp.where(here[..., None], other, x)

        return replace


def _losses(
    xp: Ops, logits: Array, tokens: np.ndarray, scored: np.ndarray, reader: ActivationReader
) -> float:
    """Σ −log p of the next tokens, over scored places (n, t − 1)."""
    labels = xp.asarray(tokens[:, 1:, None].astype(np.int64), logits)
    weights, total = xp.asarray(scored, logits), 0.0
    for part in _parts(scored):
        x = xp.as_float(logits[:, part])
        chosen = xp.take_along_axis(x, labels[:, part], -1)[..., 0]
        nll = (xp.logsumexp(x, -1) - chosen) * weights[:, part]
        total += float(reader.numpy(nll.sum()))
    return total


def _divergence(
    xp: Ops, clean: Array, spliced: Array, scored: np.ndarray, reader: ActivationReader
) -> float:
    """Σ KL(clean ‖ spliced) over scored places."""
    weights, total = xp.asarray(scored, clean), 0.0
    for part in _parts(scored):
        p, q = (xp.as_float(logits[:, part]) for logits in (clean, spliced))
        p = p - xp.logsumexp(p, -1)[..., None]
        q = q - xp.logsumexp(q, -1)[..., None]
        total += float(reader.numpy(((xp.exp(p) * (p - q)).sum(-1) * weights[:, part]).sum()))
    return total


def _parts(scored: np.ndarray) -> list[slice]:
    step = max(1, _POSITIONS // len(scored))
    return [slice(at, min(at + step, scored.shape[1])) for at in range(0, scored.shape[1], step)]
