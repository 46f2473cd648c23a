"""Checking a conversion: the source's own formula and the canonical file on the same inputs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fpo_convert.fold import threshold
from fpo_convert.row_readers import FileTensor, product
from fpo_convert.source_formula import Source
from fpo_core.arrays import numpy_ops
from fpo_core.errors import SaeError
from fpo_core.io.reader import open_safetensors
from fpo_core.sae.activations import transform_input
from fpo_core.sae.sae import load_sae

TOKENS = 2
TOLERANCE = 1e-5
_REFUSE_ABOVE = 1e-3  # far over float32 rounding: only a wrong formula gets there


@dataclass(frozen=True)
class Comparison:
    """`relative_difference` is the largest among features active on both sides, relative to the
    largest feature. Flips are features active on one side only; unexplained ones are farther than
    1e-5 from the threshold of activation. `l0` is the mean number of active features per token.
    """

    relative_difference: float
    flips: int
    unexplained_flips: int
    l0: float


def compare(source: Source, written: Path) -> Comparison:
    """Encode random inputs by the source's formula and by the canonical file, and compare."""
    x = sample_inputs(source)
    expected, edge = source_encode(source, x)
    return compare_features(expected, edge, canonical_encode(written, x.astype(np.float32)))


def canonical_encode(path: Path, x: np.ndarray) -> np.ndarray:
    """`Sae.encode` of x (t, d_in), with W_enc read by pieces so that it need not fit in memory."""
    sae = load_sae(path, verify=False)
    z, _, _ = transform_input(numpy_ops, x, sae.input_transform)
    projected = product(z, FileTensor(open_safetensors(path), "W_enc"))
    return sae.activate(numpy_ops, projected.astype(np.float32))


def compare_features(expected: np.ndarray, edge: np.ndarray, actual: np.ndarray) -> Comparison:
    """Compare features (t, d_sae); `edge` is each one's distance from the threshold of activation,
    relative to the largest pre-activation."""
    flipped = (expected != 0) != (actual != 0)
    scale = max(float(np.abs(expected).max()), np.finfo(np.float32).tiny)
    gap = np.where(flipped, 0.0, np.abs(expected - actual)).max() / scale
    return Comparison(
        relative_difference=float(gap),
        flips=int(flipped.sum()),
        unexplained_flips=int((flipped & (edge > TOLERANCE)).sum()),
        l0=float((expected != 0).sum(-1).mean()),
    )


def refuse_if_wrong(result: Comparison, dtype: str) -> None:
    """Raise SaeError where a float32 conversion differs by more than rounding can explain."""
    if dtype == "float32" and not (
        result.relative_difference <= _REFUSE_ABOVE and result.unexplained_flips == 0
    ):
        raise SaeError(
            f"the converted autoencoder differs from its source by {result.relative_difference:.1e}"
            f" with {result.unexplained_flips} unexplained flips, expected rounding alone: report "
            "this checkpoint, nothing was written"
        )


def sample_inputs(source: Source, tokens: int = TOKENS) -> np.ndarray:
    """Random inputs with a mean, of the scale the source expects: (tokens, d_in) float64."""
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(tokens, source.d_in)) + 0.3 * rng.normal(size=(tokens, 1))
    if source.whitening is not None:
        return spread @ source.whitening.inverse + source.whitening.mean
    return spread / source.scale


def source_encode(source: Source, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The source's own formula: x (t, d_in) -> features and edges, both (t, d_sae)."""
    projected = product(_prepare(source, x), source.tensors["W_enc"])
    if source.architecture == "gated":
        return _gated(source, projected)
    pre = projected + source.tensors["b_enc"].rows()
    pre = pre if source.decoder_norms is None else pre * source.decoder_norms
    return _activate(source, pre)


def _prepare(source: Source, x: np.ndarray) -> np.ndarray:
    if source.centred:
        x = x - x.mean(-1, keepdims=True)
    if source.transform == "layer_norm":
        x = (x - x.mean(-1, keepdims=True)) / (x.std(-1, ddof=1, keepdims=True) + 1e-5)
    elif source.transform == "constant_norm_rescale":
        x = x * np.sqrt(source.d_in) / np.linalg.norm(x, axis=-1, keepdims=True)
    elif source.whitening is not None:
        x = (x - source.whitening.mean) @ source.whitening.matrix
    x = x * source.scale
    return x - source.tensors["b_dec"].rows() if source.subtract_b_dec else x


def _activate(source: Source, pre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = np.abs(pre).max() + np.finfo(np.float64).tiny
    if source.architecture == "jumprelu":
        edge = threshold(source)
        return np.where(pre > edge, np.maximum(pre, 0), 0), np.abs(pre - edge) / size
    if source.architecture in ("topk", "abstopk"):
        rank = np.abs(pre) if source.architecture == "abstopk" else pre
        order = np.argsort(-rank, axis=-1, kind="stable")[:, : source.k]
        largest = np.zeros_like(pre)
        np.put_along_axis(largest, order, np.take_along_axis(pre, order, -1), -1)
        kth = np.take_along_axis(rank, order[:, -1:], -1)
        edge = np.minimum(np.abs(rank - kth), np.abs(pre))
        signed = source.architecture == "abstopk"
        return largest if signed else np.maximum(largest, 0), edge / size
    return np.maximum(pre, 0), np.abs(pre) / size


def _gated(source: Source, projected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    tensors = source.tensors
    gate = projected + tensors["b_gate"].rows()
    magnitude = projected * np.exp(tensors["r_mag"].rows().astype(np.float64))
    magnitude += tensors["b_mag"].rows()
    edge = np.minimum(np.abs(gate), np.abs(magnitude)) / (np.abs(gate).max() + 1e-300)
    return np.where(gate > 0, np.maximum(magnitude, 0), 0), edge
