"""An autoencoder where it reads the model."""

import dataclasses
from dataclasses import dataclass
from typing import Self

import numpy as np

from fpo_core.ops import Array, Ops
from fpo_core.sae import Sae
from fpo_core.sae_hook import Hook


@dataclass(frozen=True)
class FeatureTap:
    """An autoencoder, its hook, and the tokens that it does not know."""

    sae: Sae
    hook: Hook
    untrained: tuple[int, ...]
    """Token ids that it was not trained on, which pooled features leave out."""
    weights: np.ndarray | None = None
    """(d_sae,) weights of the features that D compares in place of I_k; 0 leaves one out."""

    def to(self, xp: Ops, like: Array) -> Self:
        """The same with the encoder's weights as arrays of the framework that `like` is of."""
        return dataclasses.replace(self, sae=self.sae.to(xp, like, decoder=False))
