"""The autoencoders of a run with their hooks, and the taps that capture activations there."""

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
class HookedSae:
    """An autoencoder and the hook that it reads."""

    sae: Sae
    hook: Hook


@dataclass(frozen=True)
class Features:
    """The autoencoders of a run, one or several, and what D takes from them.

    Arrays of pooled features hold those of all autoencoders, concatenated: (n, Σ d_sae).
    """

    hooked: tuple[HookedSae, ...]
    untrained: tuple[int, ...] = ()
    """Token ids that any of them was not trained on; excluded from pooling."""
    weights: np.ndarray | None = None
    """(d_sae,) weights of the features that D compares in place of I_k; 0 excludes a feature."""
    doubts: tuple[str, ...] = ()
    """Sentences on autoencoders that seem to be of another model."""

    @classmethod
    def of(
        cls,
        sae: Sae,
        hook: Hook,
        untrained: tuple[int, ...] = (),
        weights: np.ndarray | None = None,
    ) -> Self:
        """The features of one autoencoder."""
        return cls((HookedSae(sae, hook),), untrained, weights)

    @property
    def saes(self) -> tuple[Sae, ...]:
        """The autoencoders."""
        return tuple(item.sae for item in self.hooked)

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """The hook of each autoencoder."""
        return tuple(item.hook for item in self.hooked)

    @property
    def widths(self) -> tuple[int, ...]:
        """d_sae of each autoencoder."""
        return tuple(sae.d_sae for sae in self.saes)

    @property
    def single(self) -> HookedSae:
        """The one autoencoder. Raises SaeError where there are several."""
        if len(self.hooked) != 1:
            raise SaeError(f"sae names {len(self.hooked)} autoencoders, expected one: give one")
        return self.hooked[0]

    def to(self, xp: Ops, like: Array) -> Self:
        """A copy whose encoder weights are arrays of the framework and device of `like`."""
        moved = (dataclasses.replace(h, sae=h.sae.to(xp, like, decoder=False)) for h in self.hooked)
        return dataclasses.replace(self, hooked=tuple(moved))


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
