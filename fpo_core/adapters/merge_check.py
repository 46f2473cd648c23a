"""Whether a merged model equals its base with the adapter: their logits on a probe, compared."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np

from fpo_core.errors import ModelError

PROBE = (2, 32)
"""Sequences and tokens of the probe."""
TOLERANCES = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 5e-3}
"""Largest difference of a logit, relative to the largest one where that is above 1."""
MOST_OF_MOVE = 0.2
"""Largest share of the adapter's own effect that the difference may reach (root mean squares)."""


MUCH_LOST = 0.05
"""Share of the adapter's effect from which its loss is reported, or avoided."""


@dataclass(frozen=True)
class FuseCheck:
    """Differences of logits on the probe."""

    largest: float
    """Between merged model and adapter: the largest."""
    rms: float
    """Between merged model and adapter: the root mean square."""
    moved: float
    """Between adapter and base: the root mean square, which a merge without effect would have."""
    tolerance: float
    """The largest that passes."""

    @property
    def lost(self) -> float:
        """Share of the adapter's own effect that rounding took (root mean squares)."""
        return self.rms / self.moved if self.moved else 0.0

    def to_mapping(self) -> dict[str, float]:
        """The check as JSON values."""
        values = asdict(self) | {"lost": self.lost}
        return values | {"apart": values.pop("rms")}


def probe_tokens(vocabulary: int) -> np.ndarray:
    """Random token ids below `vocabulary`, shape `PROBE`, the same at every call."""
    return np.random.default_rng(0).integers(0, vocabulary, PROBE).astype(np.int32)


def check_fused(
    base: np.ndarray, adapted: np.ndarray, fused: np.ndarray, dtypes: Iterable[str]
) -> FuseCheck:
    """Compare logits, (n, t, v) each; `dtypes` are the precisions involved.

    Raises ModelError unless merged model and adapter agree within the coarsest precision, and
    differ by far less than the adapter moves its base.
    """
    scale = max(1.0, float(np.abs(adapted).max()))
    check = FuseCheck(
        largest=float(np.abs(fused - adapted).max()),
        rms=_rms(fused - adapted),
        moved=_rms(adapted - base),
        tolerance=max(TOLERANCES[d] for d in dtypes) * scale,
    )
    if not check.largest <= check.tolerance:
        raise ModelError(
            f"the merged model's logits differ from the adapter's by up to {check.largest:.2g}, "
            f"expected at most {check.tolerance:.2g}: nothing was kept; try save_dtype float32"
        )
    # The first bar alone would pass a merge that lost a small adapter in rounding.
    noise = 0.01 * TOLERANCES["float32"] * scale
    if check.rms > max(MOST_OF_MOVE * check.moved, noise):
        raise ModelError(
            f"the merged model's logits differ from the adapter's by {check.rms:.2g} (rms), and "
            f"the adapter moves its base by only {check.moved:.2g}: rounding loses it, so nothing "
            "was kept; use save_dtype float32"
        )
    return check


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
