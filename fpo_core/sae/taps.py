"""The autoencoders of a run where they read the model."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from fpo_core.arrays.ops import Array, Ops
from fpo_core.errors import SaeError
from fpo_core.sae.hook import Hook
from fpo_core.sae.sae import Sae


@dataclass(frozen=True)
class FeatureTap:
    """An autoencoder and its hook."""

    sae: Sae
    hook: Hook


@dataclass(frozen=True)
class Features:
    """One autoencoder or several, and the tokens that they do not know.

    Their features stand side by side in every (n, d_sae) array of pooled features.
    """

    taps: tuple[FeatureTap, ...]
    untrained: tuple[int, ...] = ()
    """Token ids that one of them was not trained on, which pooled features leave out."""
    weights: np.ndarray | None = None
    """(d_sae,) weights of the features that D compares in place of I_k; 0 leaves one out."""

    @classmethod
    def of(
        cls,
        sae: Sae,
        hook: Hook,
        untrained: tuple[int, ...] = (),
        weights: np.ndarray | None = None,
    ) -> Self:
        """Those of one autoencoder."""
        return cls((FeatureTap(sae, hook),), untrained, weights)

    @property
    def saes(self) -> tuple[Sae, ...]:
        """The autoencoders."""
        return tuple(tap.sae for tap in self.taps)

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """Where each reads."""
        return tuple(tap.hook for tap in self.taps)

    @property
    def widths(self) -> tuple[int, ...]:
        """How many features each has."""
        return tuple(sae.d_sae for sae in self.saes)

    @property
    def only(self) -> FeatureTap:
        """The one autoencoder. Raises SaeError where there are several."""
        if len(self.taps) != 1:
            raise SaeError(f"sae names {len(self.taps)} autoencoders, expected one: give one")
        return self.taps[0]

    def to(self, xp: Ops, like: Array) -> Self:
        """The same with the encoders' weights as arrays of the framework that `like` is of."""
        moved = (dataclasses.replace(t, sae=t.sae.to(xp, like, decoder=False)) for t in self.taps)
        return dataclasses.replace(self, taps=tuple(moved))


class Tap(Protocol):
    """Captures the activation at one hook of a backend's model."""

    def capture(self, forward: Callable[[], Any]) -> tuple[Any, Array]:
        """Run `forward`: its result, and the activation at the hook."""
        ...


def capture_all(taps: Sequence[Tap], forward: Callable[[], Any]) -> tuple[Any, tuple[Array, ...]]:
    """Run `forward` once under all taps: its result, and the activation at each."""
    if not taps:
        return forward(), ()
    (result, others), first = taps[0].capture(lambda: capture_all(taps[1:], forward))
    return result, (first, *others)
