"""Sparse autoencoders in canonical form: a linear map, an activation, and at most one transform."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fpo_core.arrays.ops import Array, Ops
from fpo_core.errors import SaeError
from fpo_core.io.hashing import file_sha256
from fpo_core.io.reader import SafetensorsFile, open_safetensors
from fpo_core.sae.activations import activate, mask_features, transform_input
from fpo_core.sae.discrepancy import pool
from fpo_core.sae.metadata import SaeMeta, parse_meta


@dataclass(frozen=True, kw_only=True, eq=False)
class Sae(SaeMeta):
    """A canonical autoencoder: `SaeMeta` and its arrays, on NumPy until `to` moves them.

    W_enc (d_in, d_sae), b_enc (d_sae,); threshold (jumprelu), r_mag and b_mag (gated), all
    (d_sae,); W_dec (d_sae, d_in) and b_dec (d_in,), or None where the decoder was dropped.
    """

    W_enc: Array
    b_enc: Array
    threshold: Array = None
    r_mag: Array = None
    b_mag: Array = None
    W_dec: Array = None
    b_dec: Array = None

    @property
    def signed(self) -> bool:
        """Whether features may be negative (abstopk)."""
        return self.architecture == "abstopk"

    @property
    def has_decoder(self) -> bool:
        """Whether reconstruction is possible."""
        return self.W_dec is not None

    def to(self, xp: Ops, like: Array, *, decoder: bool = True) -> "Sae":
        """The same autoencoder with its arrays in the framework and on the device of `like`.

        Arrays are float32, or float64 where `like` is. With `decoder=False` the decoder is left
        out, which halves the memory.
        """
        wide = str(like.dtype).endswith("float64")
        arrays = {
            name: None if value is None else xp.asarray(_as(value, wide), like)
            for name, value in self.arrays().items()
            if decoder or name not in ("W_dec", "b_dec")
        }
        return dataclasses.replace(self, **(dict.fromkeys(("W_dec", "b_dec")) | arrays))

    def arrays(self) -> dict[str, Array]:
        """The arrays by name, those that are absent left out."""
        names = [
            field.name for field in dataclasses.fields(Sae)[len(dataclasses.fields(SaeMeta)) :]
        ]
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def columns(self, indices: Array) -> "Sae":
        """The encoder of these features alone, (c,) indices in the framework of its arrays.

        A k that was taken among all features does not say which of these are active.
        """
        arrays = {
            name: value.T[indices].T if name == "W_enc" else value[indices]  # rows gather faster
            for name, value in self.arrays().items()
            if name not in ("W_dec", "b_dec")
        }
        return dataclasses.replace(self, **(dict.fromkeys(("W_dec", "b_dec")) | arrays))

    def encode(self, xp: Ops, h: Array) -> Array:
        """Feature activations: (..., d_in) -> (..., d_sae), in float32 (float64 where h is).

        Differentiable with respect to h; which features are on carries no gradient. Call `to` once
        before a loop: arrays still on NumPy are moved at each call.
        """
        sae, h = self._ready(xp, h)
        z, _, _ = transform_input(xp, h, self.input_transform)
        return sae.activate(xp, z @ sae.W_enc)

    def mean_pre_activation(self, xp: Ops, h: Array, mask: Array) -> Array:
        """Pre-activations averaged over masked tokens: (b, t, d_in), (b, t) -> (b, d_sae).

        A projection of the mean input: no (b, t, d_sae) array is made.
        """
        return self.pooled_pre_activation(xp, h, lambda z: pool(xp, z, mask))

    def pooled_pre_activation(self, xp: Ops, h: Array, mean: Callable[[Array], Array]) -> Array:
        """The same of any mean over tokens: (..., d_in) and a mean to (b, d_in) -> (b, d_sae)."""
        sae, h = self._ready(xp, h)
        z, _, _ = transform_input(xp, h, self.input_transform)
        return mean(z) @ sae.W_enc + sae.b_enc

    def activate(self, xp: Ops, projected: Array) -> Array:
        """Features from z W_enc, the bias not yet added: (..., d_sae) -> (..., d_sae)."""
        pre = projected + self.b_enc
        if self.architecture == "gated":
            magnitude = xp.relu(projected * xp.exp(self.r_mag) + self.b_mag)
            return mask_features(xp, magnitude, pre > 0)
        return activate(xp, pre, self.architecture, self.k, {"threshold": self.threshold})

    def reconstruct(self, xp: Ops, h: Array) -> Array:
        """What the decoder makes of h's features, in h's own space: (..., d_in) -> (..., d_in).

        Raises SaeError where the decoder was dropped at conversion.
        """
        sae, h = self._ready(xp, h)
        return sae.decode(xp, sae.encode(xp, h), h)

    def decode(self, xp: Ops, features: Array, h: Array) -> Array:
        """What the decoder makes of features that `encode` found in h: -> (..., d_in), as h is.

        Raises SaeError where the decoder was dropped at conversion.
        """
        if not self.has_decoder:
            raise SaeError(
                "this autoencoder was converted without its decoder, which reconstruction needs: "
                "convert it again without --encoder-only"
            )
        sae, h = self._ready(xp, h)
        _, scale, shift = transform_input(xp, h, self.input_transform)
        out = (features @ sae.W_dec + sae.b_dec) * scale + shift
        return out + h.sum(-1)[..., None] / self.d_in if self.centred else out

    def _ready(self, xp: Ops, h: Array) -> tuple["Sae", Array]:
        if h.shape[-1] != self.d_in:
            raise SaeError(
                f"the activations have width {h.shape[-1]}, expected d_in = {self.d_in}: the "
                f"autoencoder belongs to another model or site (made for {self.model_name or '?'}, "
                f"{self.hook or 'no hook named'})"
            )
        h = xp.as_float(h)
        return (self.to(xp, h) if isinstance(self.W_enc, np.ndarray) else self), h


def load_sae(path: str | Path, *, verify: bool = True) -> Sae:
    """Load a canonical file (docs/sae_format.md), float32 weights memory-mapped.

    `verify` reads the whole payload once and compares its hash, which also catches what a changed
    byte would do silently. Raises SaeError for anything irregular.
    """
    if Path(path).is_dir():
        raise SaeError(f"{path} is a folder, expected one file: run `fpo convert sae` on it")
    file = open_safetensors(path)
    meta = parse_meta(file.path, file.header)
    _check_tensors(file, meta)
    if verify:
        check_payload(file, meta)
    arrays: dict[str, Any] = file.mapped_floats()
    fields: dict[str, Any] = {
        field.name: getattr(meta, field.name) for field in dataclasses.fields(meta)
    }
    return Sae(**fields, **arrays)


def check_payload(file: SafetensorsFile, meta: SaeMeta) -> None:
    """Raise SaeError where the payload's SHA-256 is not the one that the header states."""
    if file_sha256(file.path, file.payload_begin) != meta.payload_sha256:
        raise SaeError(
            f"{file.path} has weights that were changed after it was written: convert the original "
            "again"
        )


def _check_tensors(file: SafetensorsFile, meta: SaeMeta) -> None:
    shapes = meta.shapes()
    decoder = {"W_dec", "b_dec"}
    found = set(file.entries)
    if found not in (set(shapes), set(shapes) - decoder):
        raise SaeError(
            f"{file.path} holds {', '.join(sorted(found))}, expected {', '.join(shapes)}: convert "
            "the original again"
        )
    for name, entry in file.entries.items():
        kinds = ("F32", "F16", "BF16") if name in ("W_enc", "W_dec") else ("F32",)
        if entry.shape != shapes[name] or entry.dtype not in kinds:
            raise SaeError(
                f"{file.path} holds {name} as {entry.dtype} {entry.shape}, expected "
                f"{' or '.join(kinds)} {shapes[name]}: convert the original again"
            )


def _as(value: Any, wide: bool) -> Any:
    return value.astype(np.float64) if wide and isinstance(value, np.ndarray) else value
