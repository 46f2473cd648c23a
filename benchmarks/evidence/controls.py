"""Encoders in place of the run's, as files: controls, and autoencoders of other blocks."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fpo_convert.sae import convert_sae
from fpo_core.sae.sae import Sae, load_sae
from fpo_core.sae_training.folding import write_folded

BLOCKS = Path(__file__).parent / "saes"
"""Autoencoders of other blocks of the world's model, of an earlier examples/world/build_sae.py."""


def encoder_file(name: str, sae: Path, folder: Path) -> Path:
    """The file of an encoder by its name, made in `folder` where it is not there.

    A control is made of the autoencoder `sae`; any other name is a folder of `BLOCKS`.
    """
    path = folder / f"{name.replace(' ', '-')}.safetensors"
    if path.exists():
        return path
    if name in CONTROLS:
        write_folded(path, CONTROLS[name](load_sae(sae)), "float32")
    else:
        convert_sae(BLOCKS / name, path)
    return path


def random_like(sae: Sae, seed: int = 17) -> Sae:
    """The autoencoder with random encoder directions of the same norms."""
    weights = np.asarray(sae.W_enc, np.float32)
    drawn = np.random.default_rng(seed).normal(size=weights.shape)
    drawn *= np.linalg.norm(weights, axis=0) / np.linalg.norm(drawn, axis=0)
    return dataclasses.replace(sae, W_enc=drawn.astype(np.float32))


def hidden_state(sae: Sae) -> Sae:
    """An autoencoder whose features are the activation: D is then a mean squared error."""
    d = sae.d_in
    eye, zeros = np.eye(d, dtype=np.float32), np.zeros(d, np.float32)
    meta = {"hook": sae.hook, "untrained_tokens": sae.untrained_tokens}
    return Sae(architecture="abstopk", d_in=d, d_sae=d, k=d, W_enc=eye, b_enc=zeros, **meta)


CONTROLS: dict[str, Callable[[Sae], Sae]] = {
    "random encoder": random_like,
    "hidden state": hidden_state,
}
