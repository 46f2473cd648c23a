"""How much of the variance of a model's activations an autoencoder explains on given texts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from fpo_core.arrays.ops import Array, Ops
from fpo_core.data.batches import PAD_ID
from fpo_core.errors import DataError
from fpo_core.events import Sink, progress, silent
from fpo_core.sae.taps import Features

OUTLIER = 5.0
"""Tokens above this many median norms are attention sinks, which no autoencoder reconstructs."""
FITS, USABLE = 0.35, 0.6
"""Largest unexplained share of variance for the verdicts "fits" and "usable"."""
WORSE_CHAT = 0.1
"""Difference in unexplained variance between chat and raw text from which it is reported."""
DENSE = 0.25
"""Mean share of active features per token above which they are reported as not sparse."""
DEAD = 0.5
"""Share of dead features from which it is reported."""
_ACTIVATIONS_PER_FEATURE = 10
"""Mean activations per feature below which the texts are too short to call any feature dead."""
_TOKENS = 1024
"""Tokens per batch."""


class ActivationReader(Protocol):
    """A frozen model whose activations at one hook can be read, in some framework."""

    ops: Ops

    def read(self, tokens: np.ndarray) -> Array:
        """Activations at the hook of right-padded token ids: (n, t) int32 -> (n, t, d_in)."""
        ...

    def numpy(self, array: Array) -> np.ndarray:
        """An array of the framework as float32 NumPy."""
        ...


@dataclass(frozen=True)
class Fit:
    """Measurements on some texts; averages over tokens exclude outliers.

    `variance_unexplained` is Σ‖h − ĥ‖² / Σ‖h − mean h‖²; `with_outliers` the same over all tokens.
    `l0` is the mean number of active features per token, `dead_share` the share never active.
    `outliers_first` is the share of outliers that are the first token of their text.
    """

    tokens: int
    variance_unexplained: float
    with_outliers: float
    l0: float
    dead_share: float
    outlier_share: float
    outliers_first: float


@dataclass(frozen=True)
class Verdict:
    """The conclusion in a word, and the reasons in sentences."""

    word: Literal["fits", "usable", "does not fit"]
    reasons: tuple[str, ...]


class _Sums:
    """Running sums over tokens: squared errors, squared norms, and the vectors themselves."""

    def __init__(self, width: int) -> None:
        self.count, self.errors, self.squares = 0.0, 0.0, 0.0
        self.total = np.zeros(width)

    def unexplained(self) -> float:
        # Σ‖h − mean h‖² = Σ‖h‖² − ‖Σh‖²/n: one pass, without storing the activations.
        variance = self.squares - float(self.total @ self.total) / max(self.count, 1.0)
        return self.errors / variance if variance > 0 else float("nan")


def check_texts(
    reader: ActivationReader,
    features: Features,
    rows: Sequence[Sequence[int]],
    emit: Sink = silent,
) -> Fit:
    """Measure an autoencoder on rows of token ids, excluding tokens it was not trained on.

    `emit` hears of each batch. Raises SaeError where there is no decoder, DataError where no token
    remains.
    """
    measure = _Measure(reader, features)
    batches = list(_batches(rows))
    for i, batch in enumerate(batches, 1):
        measure.add(*batch)
        progress(emit, "texts: batch", i, len(batches))
    return measure.result()


class _Measure:
    def __init__(self, reader: ActivationReader, features: Features) -> None:
        self.reader, self.sae, self.untrained = reader, features.single.sae, features.untrained
        self.device_sae: Any = None
        self.limit: float | None = None
        self.all, self.inliers = _Sums(self.sae.d_in), _Sums(self.sae.d_in)
        self.fired = np.zeros(self.sae.d_sae)
        self.outliers = self.first = 0.0

    def add(self, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Add one batch: ids (n, t) and lengths (n,)."""
        xp, numpy = self.reader.ops, self.reader.numpy
        h = xp.as_float(self.reader.read(tokens))
        # The first batch tells on which device the activations lie.
        self.device_sae = self.device_sae or self.sae.to(xp, h)
        c = self.device_sae.encode(xp, h)
        error = h - self.device_sae.decode(xp, c, h)
        squares, errors = numpy((h * h).sum(-1)), numpy((error * error).sum(-1))
        counted = np.arange(tokens.shape[1]) < lengths[:, None]
        counted &= ~np.isin(tokens, self.untrained)
        outlier = self._outliers(np.sqrt(squares), counted)
        for sums, mask in ((self.all, counted), (self.inliers, counted & ~outlier)):
            sums.count += mask.sum()
            sums.errors += float(errors[mask].sum(dtype=np.float64))
            sums.squares += float(squares[mask].sum(dtype=np.float64))
            weights = xp.asarray(mask.astype(np.float32), h)[..., None]
            sums.total += numpy((h * weights).sum(0).sum(0))
        fired = xp.as_float(c != 0) * weights
        self.fired += numpy(fired.sum(0).sum(0))
        self.outliers += (outlier & counted).sum()
        self.first += (outlier & counted)[:, 0].sum()

    def _outliers(self, norms: np.ndarray, counted: np.ndarray) -> np.ndarray:
        # The limit comes from the first batch: a median over all texts would need a second pass.
        if self.limit is None and counted.any():
            self.limit = OUTLIER * float(np.median(norms[counted]))
        return norms > (self.limit or np.inf)

    def result(self) -> Fit:
        if not self.inliers.count:
            raise DataError(
                "no token of these texts is one that the autoencoder was trained on, expected "
                "some: give longer texts"
            )
        return Fit(
            tokens=int(self.all.count),
            variance_unexplained=self.inliers.unexplained(),
            with_outliers=self.all.unexplained(),
            l0=float(self.fired.sum() / self.inliers.count),
            dead_share=float((self.fired == 0).mean()),
            outlier_share=float(self.outliers / self.all.count),
            outliers_first=float(self.first / self.outliers) if self.outliers else 0.0,
        )


def _batches(rows: Sequence[Sequence[int]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Right-padded batches of about `_TOKENS` tokens, rows sorted by length to pad little."""
    ordered = sorted((row for row in rows if row), key=len)
    while ordered:
        size = max(1, _TOKENS // len(ordered[0]))
        part, ordered = ordered[:size], ordered[size:]
        lengths = np.array([len(row) for row in part])
        tokens = np.full((len(part), lengths.max()), PAD_ID, np.int32)
        for padded, row in zip(tokens, part, strict=True):
            padded[: len(row)] = row
        yield tokens, lengths


def judge(raw: Fit, chat: Fit | None, d_sae: int) -> Verdict:
    """The conclusion from the measurements, those under the chat template where there are any."""
    fit = chat or raw
    unexplained = fit.variance_unexplained
    word = "fits" if unexplained <= FITS else "usable" if unexplained <= USABLE else "does not fit"
    reasons = [f"{unexplained:.0%} of the variance is unexplained (fits up to {FITS:.0%})"]
    if word == "does not fit":
        reasons.append("it may be of another model, layer or site: use another, or set hook")
    if chat is not None and chat.variance_unexplained > raw.variance_unexplained + WORSE_CHAT:
        reasons.append(
            f"raw text is explained better ({raw.variance_unexplained:.0%} unexplained): prefer an "
            "autoencoder of an instruction-tuned model"
        )
    if fit.l0 > DENSE * d_sae:
        reasons.append(f"{fit.l0:.0f} of {d_sae} features are active per token: not sparse")
    if fit.dead_share > DEAD and fit.tokens * fit.l0 > _ACTIVATIONS_PER_FEATURE * d_sae:
        reasons.append(f"{fit.dead_share:.0%} of the features are never active on these texts")
    if fit.outlier_share > 0:
        reasons.append(
            f"{fit.outlier_share:.1%} of the tokens have over {OUTLIER:.0f} times the median norm "
            f"and were excluded; {fit.outliers_first:.0%} of them are the first of their text"
        )
    return Verdict(word, tuple(reasons))
