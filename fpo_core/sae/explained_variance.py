"""How much of the variance of a model's activations an autoencoder explains on given texts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from fpo_core.arrays.ops import Array
from fpo_core.data.batches import PAD_ID
from fpo_core.errors import DataError
from fpo_core.events import Sink, progress, silent
from fpo_core.sae.activation_reader import ActivationReader
from fpo_core.sae.sae import Sae
from fpo_core.sae.taps import Features

OUTLIER = 5.0
"""Tokens above this many median norms are attention sinks, which no autoencoder reconstructs."""
FITS, USABLE = 0.35, 0.6
"""Largest unexplained share of variance for the verdicts "fits" and "usable"."""
WORSE_CHAT = 0.1
"""Difference in unexplained variance between chat and raw text from which it is reported."""
DENSE = 0.25
"""Mean share of active features per token above which they are reported as not sparse."""
DENSE_FEATURE = 0.1
"""Share of the tokens from which a feature that is active there is called dense."""
DEAD = 0.5
"""Share of dead features from which it is reported."""
_ACTIVATIONS_PER_FEATURE = 10
"""Mean activations per feature below which the texts are too short to call any feature dead."""
_TOKENS = 1024
"""Most tokens of a batch, padding included; a longer row is a batch of its own."""
_FEATURE_BYTES = 64 << 20
"""Of one array of features: a batch is encoded in parts of at most so many."""
_WORKING = 8
"""Arrays of that size that encoding, decoding and counting hold at once, at most."""
_SAMPLE = 32
"""Rows of all lengths whose median norm says which tokens are outliers."""


@dataclass(frozen=True)
class Recovered:
    """What replacing activations costs a model: means over predicted tokens, in nats.

    `ce_spliced` is the cross-entropy with reconstructions in the activations' place, `ce_zero` with
    zeros; `kl` is from the clean logits to those of the reconstruction. Tokens that the
    autoencoder was not trained on stay as they are.
    """

    tokens: int
    ce_clean: float
    ce_spliced: float
    ce_zero: float
    kl: float

    @property
    def share(self) -> float:
        """CE recovered, (CE_zero − CE_spliced) / (CE_zero − CE_clean): 1 where nothing is lost."""
        return (self.ce_zero - self.ce_spliced) / (self.ce_zero - self.ce_clean)


@dataclass(frozen=True)
class Fit:
    """Measurements on some texts; averages over tokens exclude outliers.

    `variance_unexplained` is Σ‖h − ĥ‖² / Σ‖h − mean h‖²; `with_outliers` the same over all tokens.
    `l0` is the mean number of active features per token, `dead_share` the share never active,
    `dense_share` that active at more than a tenth of the tokens. `outliers_first` is the share of
    outliers that are the first token of their text.
    """

    tokens: int
    variance_unexplained: float
    with_outliers: float
    l0: float
    dead_share: float
    dense_share: float
    outlier_share: float
    outliers_first: float
    recovered: Recovered | None = None
    """What the model itself loses by the reconstruction, where that was measured."""

    def to_mapping(self) -> dict[str, Any]:
        """The measurements as JSON values, the share of the cross-entropy recovered among them."""
        share = {} if self.recovered is None else {"ce_recovered": self.recovered.share}
        return asdict(self) | share


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
    ordered = sorted((row for row in rows if row), key=len)
    measure.set_limit(text_batches(ordered[:: max(1, len(ordered) // _SAMPLE)]))
    batches = list(text_batches(ordered))
    for i, batch in enumerate(batches, 1):
        measure.add(*batch)
        progress(emit, "texts: batch", i, len(batches))
    return measure.result()


def tokens_at_once(d_sae: int) -> int:
    """How many tokens are encoded at once."""
    return max(1, min(_TOKENS, _FEATURE_BYTES // (4 * d_sae)))


def memory_needed(sae: Sae, rows: Sequence[Sequence[int]]) -> int:
    """Bytes that `check_texts` holds besides the model, at most: float32 throughout."""
    tokens = max(_TOKENS, *(len(row) for row in rows)) if rows else _TOKENS
    weights = 2 * sae.d_in * sae.d_sae
    features = _WORKING * tokens_at_once(sae.d_sae) * sae.d_sae
    return 4 * (weights + features + _WORKING * tokens * sae.d_in)


class _Measure:
    def __init__(self, reader: ActivationReader, features: Features) -> None:
        self.reader, self.sae, self.untrained = reader, features.single.sae, features.untrained
        self.device_sae: Any = None
        self.limit = np.inf
        self.all, self.inliers = _Sums(self.sae.d_in), _Sums(self.sae.d_in)
        self.fired = np.zeros(self.sae.d_sae)
        self.outliers = self.first = 0.0

    def set_limit(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """Take the norm above which a token is an outlier from a sample of the batches."""
        norms: list[np.ndarray] = []
        for tokens, lengths in batches:
            h = self._activations(tokens)
            squares = self.reader.numpy((h * h).sum(-1))
            norms.append(np.sqrt(squares[self._counted(tokens, lengths)]))
        if sum(map(len, norms)):
            self.limit = OUTLIER * float(np.median(np.concatenate(norms)))

    def add(self, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Add one batch: (n, t) ids and (n,) lengths."""
        h, counted = self._activations(tokens), self._counted(tokens, lengths)
        begins = np.arange(len(counted)) % tokens.shape[1] == 0
        # Features (tokens, d_sae) are what fills the memory, of a wide autoencoder above all.
        step = tokens_at_once(self.sae.d_sae)
        for start in range(0, len(counted), step):
            part = slice(start, start + step)
            self._add_tokens(h[part], counted[part], begins[part])

    def _activations(self, tokens: np.ndarray) -> Array:
        return self.reader.ops.as_float(self.reader.read(tokens)[0]).reshape(-1, self.sae.d_in)

    def _counted(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Which tokens count, batch flattened: (n · t,) booleans."""
        inside = np.arange(tokens.shape[1]) < lengths[:, None]
        return (inside & ~np.isin(tokens, self.untrained)).reshape(-1)

    def _add_tokens(self, h: Array, counted: np.ndarray, begins: np.ndarray) -> None:
        """Activations (t, d_in), which of them count and which begin a text: (t,) booleans."""
        xp, numpy = self.reader.ops, self.reader.numpy
        # The first batch tells on which device the activations lie.
        self.device_sae = self.device_sae or self.sae.to(xp, h)
        c = self.device_sae.encode(xp, h)
        error = h - self.device_sae.decode(xp, c, h)
        squares, errors = numpy((h * h).sum(-1)), numpy((error * error).sum(-1))
        outlier = np.sqrt(squares) > self.limit
        for sums, mask in ((self.all, counted), (self.inliers, counted & ~outlier)):
            sums.count += mask.sum()
            sums.errors += float(errors[mask].sum(dtype=np.float64))
            sums.squares += float(squares[mask].sum(dtype=np.float64))
            weights = xp.asarray(mask.astype(np.float32), h)[..., None]
            sums.total += numpy((h * weights).sum(0))
        self.fired += numpy((xp.as_float(c != 0) * weights).sum(0))
        self.outliers += (outlier & counted).sum()
        self.first += (outlier & counted & begins).sum()

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
            dense_share=float((self.fired > DENSE_FEATURE * self.inliers.count).mean()),
            outlier_share=float(self.outliers / self.all.count),
            outliers_first=float(self.first / self.outliers) if self.outliers else 0.0,
        )


def text_batches(
    ordered: Sequence[Sequence[int]], limit: int = _TOKENS
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows from short to long as padded ids (n, t) and lengths (n,), `limit` tokens at most.

    A longer row is a batch of its own.
    """
    while ordered:
        size = 1
        while size < len(ordered) and (size + 1) * len(ordered[size]) <= limit:
            size += 1
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
    if fit.recovered is not None:
        reasons.append(
            f"{fit.recovered.share:.1%} of the loss is recovered and the logits move by a KL of "
            f"{fit.recovered.kl:.3f} where reconstructions take the activations' place"
        )
    if fit.outlier_share > 0:
        reasons.append(
            f"{fit.outlier_share:.1%} of the tokens have over {OUTLIER:.0f} times the median norm "
            f"and were excluded; {fit.outliers_first:.0%} of them are the first of their text"
        )
    return Verdict(word, tuple(reasons))
