"""How well values foretell rewards, by how much of a text is read."""

from collections.abc import Sequence

import numpy as np

PLACES = {"prompt": 0.0, "quarter": 0.25, "half": 0.5, "three_quarters": 0.75, "end": 1.0}
"""Where values are read: shares of the completion that are there by then."""


def explained(values: Sequence[np.ndarray], rewards: np.ndarray) -> dict[str, float]:
    """R² of the rewards (n,) by the values at `PLACES`: 1 − Σ (r − V)² / Σ (r − mean)².

    `values` are those of each text, (|y| + 1,). Above 0 a value is better than the mean.
    """
    spread = ((rewards - rewards.mean()) ** 2).sum()
    result = {}
    for name, share in PLACES.items():
        read = np.array([v[round(share * (len(v) - 1))] for v in values])
        result[name] = float(1 - ((rewards - read) ** 2).sum() / spread) if spread else float("nan")
    return result
