"""From a source's formula to canonical form: everything linear is absorbed into W_enc and b_enc.

W = M W_enc · n            M: scalar factor or whitening matrix, n: decoder row norms
b = (b_enc − b_dec W_enc − μ M W_enc) · n
centred inputs:  W −= mean over rows of W
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from fpo_convert.row_readers import ArrayTensor, chunks
from fpo_convert.source_formula import Source
from fpo_core.errors import SaeError
from fpo_core.io.reader import FLOAT_CODES
from fpo_core.io.writer import Tensor, float_tensor
from fpo_core.sae.metadata import SaeMeta

_MIN_NORM = 1e-8  # SAELens's own floor where it divides by a decoder norm


def canonical_meta(source: Source, origin: Mapping[str, object]) -> SaeMeta:
    """The metadata of the canonical file that `canonical_tensors` fills."""
    return SaeMeta(
        architecture=source.architecture,
        input_transform=source.transform,
        d_in=source.d_in,
        d_sae=source.d_sae,
        k=source.k if source.architecture in ("topk", "abstopk") else None,
        hook=source.hook,
        model_name=source.model_name,
        untrained_tokens=source.untrained_tokens,
        folded=folded(source),
        centred=source.centred or source.already_centred,
        without_value_bias=source.without_value_bias,
        neuronpedia_id=source.neuronpedia_id,
        source=origin,
    )


def folded(source: Source) -> tuple[str, ...]:
    """What conversion absorbs into the weights, in the order in which the source applies it."""
    steps = {
        "centring": source.centred,
        f"norm_factor={source.scale!r}": source.scale != 1.0,
        "whitening": source.whitening is not None,
        "b_dec_subtraction": source.subtract_b_dec,
        "decoder_norm": source.rescale_by_decoder,
        "log_threshold": source.threshold_log,
        f"threshold_correction={source.threshold_factor!r}": source.threshold_factor != 1.0,
        "finetuning_scaling_factor": source.decoder_factor is not None,
        "transcoder_decoder_dropped": not source.has_decoder,
    }
    return tuple(name for name, present in steps.items() if present)


def canonical_tensors(source: Source, dtype: str, *, encoder_only: bool) -> list[Tensor]:
    """What to write, in order. Raises SaeError for an unknown dtype."""
    if dtype not in FLOAT_CODES:
        raise SaeError(f"dtype {dtype!r} is unknown, expected one of {', '.join(FLOAT_CODES)}")
    fold = _Fold(source)

    def vector(name: str, size: int, value: Callable[[], np.ndarray]) -> Tensor:
        return float_tensor(name, "F32", (size,), lambda: [value()])

    def matrix(name: str, rows: Callable[[], Iterator[np.ndarray]], *shape: int) -> Tensor:
        return float_tensor(name, FLOAT_CODES[dtype], shape, rows)

    # W_enc comes first: the biases depend on `offset`, which the pass over its rows sums up.
    tensors = [matrix("W_enc", fold.encoder, source.d_in, source.d_sae)]
    tensors.append(vector("b_enc", source.d_sae, fold.bias))
    if source.architecture == "jumprelu":
        tensors.append(vector("threshold", source.d_sae, lambda: threshold(source)))
    if source.architecture == "gated":
        tensors.append(vector("r_mag", source.d_sae, source.tensors["r_mag"].rows))
        tensors.append(vector("b_mag", source.d_sae, fold.magnitude_bias))
    if source.has_decoder and not encoder_only:
        tensors.append(matrix("W_dec", fold.decoder, source.d_sae, source.d_in))
        tensors.append(vector("b_dec", source.d_in, fold.output_bias))
    return tensors


def threshold(source: Source) -> np.ndarray:
    """The threshold of every feature, (d_sae,): exponentiated and corrected where needed."""
    value = source.tensors["threshold"].rows()
    value = np.exp(value.astype(np.float64)) if source.threshold_log else value
    value = value if source.threshold_factor == 1.0 else value * np.float64(source.threshold_factor)
    return np.broadcast_to(value.reshape(-1), (source.d_sae,))


class _Fold:
    """One conversion; `offset` is b_dec W_enc + μ M W_enc, complete once `encoder` has run."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.norms = source.decoder_norms
        self.offset = np.zeros(source.d_sae)

    def encoder(self) -> Iterator[np.ndarray]:
        """Rows of the folded W_enc."""
        if not self.source.centred:
            yield from self._uncentred()
            return
        # Two passes over W_enc: its mean must be known before the first row is written.
        total = np.zeros(self.source.d_sae)
        for rows in self._uncentred():
            total += rows.sum(0, dtype=np.float64)
        for rows in self._uncentred():
            yield rows - total / self.source.d_in

    def _uncentred(self) -> Iterator[np.ndarray]:
        self.offset = np.zeros(self.source.d_sae)
        b_dec = self.source.tensors["b_dec"].rows() if self.source.subtract_b_dec else None
        for part, rows in chunks(self.source.tensors["W_enc"]):
            if b_dec is not None and b_dec[part].any():
                self.offset += b_dec[part].astype(rows.dtype) @ rows
            if self.source.whitening is None:
                yield self._scaled(rows, self.source.scale)
        if self.source.whitening is not None:
            yield from self._whitened(self.source.whitening.matrix, self.source.whitening.mean)

    def _whitened(self, matrix: np.ndarray, mean: np.ndarray) -> Iterator[np.ndarray]:
        stored = self.source.tensors["W_enc"].rows().astype(np.float64)
        for part, rows in chunks(ArrayTensor(matrix.astype(np.float64))):
            product = rows @ stored
            self.offset += mean[part].astype(np.float64) @ product
            yield self._scaled(product, 1.0)

    def _scaled(self, rows: np.ndarray, factor: float) -> np.ndarray:
        if self.norms is not None:
            return _times(rows, self.norms * factor)
        return rows if factor == 1.0 else _times(rows, factor)

    def bias(self) -> np.ndarray:
        """The folded b_enc; for gated, that of the gate."""
        name = "b_gate" if self.source.architecture == "gated" else "b_enc"
        value = self.source.tensors[name].rows() - self.offset
        return value if self.norms is None else value * self.norms

    def magnitude_bias(self) -> np.ndarray:
        """The folded b_mag of a gated autoencoder, whose magnitudes are x W_enc · exp(r_mag)."""
        r_mag = self.source.tensors["r_mag"].rows().astype(np.float64)
        return self.source.tensors["b_mag"].rows() - self.offset * np.exp(r_mag)

    def decoder(self) -> Iterator[np.ndarray]:
        """Rows of the W_dec that reconstructs in the space of unscaled inputs."""
        source = self.source
        factor = np.full(source.d_sae, 1.0 / source.scale)
        if self.norms is not None:
            factor /= np.maximum(self.norms, _MIN_NORM)
        if source.decoder_factor is not None:
            factor *= source.decoder_factor
        trivial = bool((factor == 1.0).all())
        for part, rows in chunks(source.tensors["W_dec"]):
            scaled = rows if trivial else _times(rows, factor[part, None])
            yield self._unwhitened(scaled)

    def output_bias(self) -> np.ndarray:
        """The b_dec that reconstructs in the space of unscaled inputs."""
        value = self.source.tensors["b_dec"].rows()
        if self.source.scale != 1.0:
            value = value / np.float64(self.source.scale)
        whitening = self.source.whitening
        return self._unwhitened(value) + (whitening.mean if whitening else 0)

    def _unwhitened(self, rows: np.ndarray) -> np.ndarray:
        whitening = self.source.whitening
        return rows if whitening is None else rows.astype(np.float64) @ whitening.inverse


def _times(rows: np.ndarray, factor: np.ndarray | float) -> np.ndarray:
    """A product in the rows' own precision, in which SAELens computes these factors too."""
    return rows * np.asarray(factor, rows.dtype)
