"""Whether a merged model is the adapter on its base: their logits on a probe, compared."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np

from fpo_core.errors import ModelError

PROBE = (2, 32)
"""Sequences and tokens of the probe."""
TOLERANCES = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 5e-3}
"""Most difference of a logit, relative to the largest one where that is above 1."""
MOST_OF_MOVE = 0.2
"""Most of the adapter's own effect that the difference may amount to (root mean squares)."""


@dataclass(frozen=True)
class FuseCheck:
    """Differences of logits on the probe."""

    largest: float
    """Of merged model and adapter: the largest."""
    apart: float
    """Of merged model and adapter: the root mean square."""
    moved: float
    """Of adapter and base: the root mean square. A merge that lost the adapter would be as far."""
    tolerance: float
    """The largest that passes."""

    def to_mapping(self) -> dict[str, float]:
        """The check as JSON values."""
        return asdict(self)


def probe_tokens(vocabulary: int) -> np.ndarray:
    """Random token ids, the same at every call."""
    return np.random.default_rng(0).integers(0, vocabulary, PROBE).astype(np.int32)


def check_fused(
    base: np.ndarray, adapted: np.ndarray, fused: np.ndarray, dtypes: Iterable[str]
) -> FuseCheck:
    """Compare logits, (n, t, v) each; `dtypes` are the precisions that took part.

    Raises ModelError unless merged model and adapter agree within the coarsest precision, and
    differ by far less than the adapter moves its base: losing the adapter would fail.
    """
    scale = max(1.0, float(np.abs(adapted).max()))
    found = FuseCheck(
        largest=float(np.abs(fused - adapted).max()),
        apart=_rms(fused - adapted),
        moved=_rms(adapted - base),
        tolerance=max(TOLERANCES[d] for d in dtypes) * scale,
    )
    if not found.largest <= found.tolerance:
        raise ModelError(
            f"the merged model's logits differ from the adapter's by up to {found.largest:.2g}, "
            f"expected at most {found.tolerance:.2g}: nothing was kept; try save_dtype float32"
        )
    noise = 0.01 * TOLERANCES["float32"] * scale
    if found.apart > max(MOST_OF_MOVE * found.moved, noise):
        raise ModelError(
            f"the merged model's logits differ from the adapter's by {found.apart:.2g} (rms), and "
            f"the adapter moves its base by only {found.moved:.2g}: rounding loses it, so nothing "
            "was kept; use save_dtype float32"
        )
    return found


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
