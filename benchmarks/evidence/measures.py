"""Measures of drift: the run's autoencoder, and two controls at the same hook."""

import dataclasses

import numpy as np

from fpo_core.arrays import numpy_ops
from fpo_core.sae.discrepancy import discrepancy
from fpo_core.sae.sae import Sae
from fpo_core.sae.taps import Features, HookedSae

NAMES = ("sae", "random", "hidden")
"""The autoencoder, one of random weights, and the hidden state itself."""


def with_controls(features: Features) -> Features:
    """An autoencoder and its controls at one hook, for one forward pass."""
    sae, hook = features.single.sae, features.single.hook
    saes = (sae, random_like(sae), hidden_state(sae.d_in))
    taps = tuple(HookedSae(control, hook) for control in saes)
    return Features(taps, features.untrained)


def random_like(sae: Sae, seed: int = 17) -> Sae:
    """The autoencoder with random encoder directions of the same norms."""
    weights = np.asarray(sae.W_enc, np.float32)
    drawn = np.random.default_rng(seed).normal(size=weights.shape)
    drawn *= np.linalg.norm(weights, axis=0) / np.linalg.norm(drawn, axis=0)
    return dataclasses.replace(sae, W_enc=drawn.astype(np.float32))


def hidden_state(d: int) -> Sae:
    """An autoencoder whose features are the activation: D is then a mean squared error."""
    eye, zeros = np.eye(d, dtype=np.float32), np.zeros(d, np.float32)
    return Sae(architecture="abstopk", d_in=d, d_sae=d, k=d, W_enc=eye, b_enc=zeros)


def drifts(
    pooled: np.ndarray, reference: np.ndarray, features: Features, k: int, *, normalize: bool
) -> dict[str, np.ndarray]:
    """D by each measure, (2b,): from pooled features (2b, Σ m) of policy and reference.

    The hidden state is compared in all of its dimensions.
    """
    ends = np.cumsum(features.widths)[:-1]
    sides = zip(np.split(pooled, ends, 1), np.split(reference, ends, 1), strict=True)
    return {
        name: discrepancy(
            numpy_ops,
            policy.astype(np.float64),
            stored.astype(np.float64),
            policy.shape[1] if name == "hidden" else k,
            normalize=normalize,
        )[0]
        for name, (policy, stored) in zip(NAMES, sides, strict=True)
    }
