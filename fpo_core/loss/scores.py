"""`Scores`, all that losses and metrics see of a model: a few numbers per sequence of a batch."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fpo_core.arrays.ops import Array


@dataclass(frozen=True)
class Scores:
    """Per-sequence vectors of a batch of b pairs; rows 0..b−1 are chosen, b..2b−1 rejected.

    Arrays are those of the framework that computed them; fields that were not asked for are None.
    `pooled` and `feature_lengths` need an autoencoder, `d`, `union` and `outside_cap` the stored
    reference too, `kl` the reference's distribution.
    """

    logps: Array
    """(2b,) log π(y|x), summed over completion tokens, in nats."""
    lengths: Array
    """(2b,) |y|, the completion tokens scored."""
    d: Array | None = None
    """(2b,) the feature discrepancy D of eq. 10."""
    union: Array | None = None
    """(2b,) |I_k|, the features that D compares."""
    outside_cap: Array | None = None
    """(2b,) policy top-k features whose stored reference was cut off by the cap."""
    pooled: Array | None = None
    """(2b, d_sae) mean feature c̄ over the tokens that count."""
    feature_lengths: Array | None = None
    """(2b,) n_D, the tokens that count in c̄."""
    kl: Array | None = None
    """(2b,) sequential KL(π_ref ‖ πθ), in nats."""
    entropy: Array | None = None
    """(2b,) next-token entropy summed over completion tokens, in nats."""
    degree: Array | None = None
    """(2b,) −log of the degree head's share for the level of a completion's variant, in nats."""
    degree_hit: Array | None = None
    """(2b,) 1 where the head gives that level the largest share, else 0."""

    @property
    def mean_logps(self) -> Array:
        """(2b,) log π(y|x) / |y|."""
        return self.logps / self.lengths

    def without_pooled(self) -> Self:
        """The same scores less the (2b, d_sae) features, which are large."""
        return dataclasses.replace(self, pooled=None)

    def astype(self, dtype: Any) -> Self:
        """The same NumPy scores in another precision."""
        return self.map(lambda array: array.astype(dtype))

    def map(self, convert: Callable[[Array], Array]) -> Self:
        """Every field that is there passed through `convert`, such as one to NumPy arrays."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return type(self)(**{k: None if v is None else convert(v) for k, v in fields.items()})


def join(parts: "list[Scores]") -> Scores:
    """The scores of several NumPy batches as one; a field missing in any part is missing."""

    def joined(name: str) -> np.ndarray | None:
        values = [getattr(part, name) for part in parts]
        if any(value is None for value in values):
            return None
        # Every part is chosen then rejected, and so must the whole be.
        return np.concatenate([chosen(v) for v in values] + [rejected(v) for v in values])

    fields = (f.name for f in dataclasses.fields(Scores))
    return Scores(**{name: joined(name) for name in fields})


def chosen(x: Array) -> Array:
    """The chosen half of a (2b, ...) array."""
    return x[: x.shape[0] // 2]


def rejected(x: Array) -> Array:
    """The rejected half of a (2b, ...) array."""
    return x[x.shape[0] // 2 :]
