"""Sparse autoencoders in canonical form: input transform, linear map, activation.

sae = load_sae("sae.safetensors")
features = sae.encode(numpy_ops, h)    # (..., d_in) -> (..., d_sae)
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fpo_core.arrays.ops import Array, Ops
from fpo_core.errors import SaeError
from fpo_core.io.digests import file_sha256
from fpo_core.io.file_array import FileArray
from fpo_core.io.reader import SafetensorsFile, open_safetensors
from fpo_core.sae.activations import LAYER_NORM_EPS, activate, mask_features, transform_input
from fpo_core.sae.discrepancy import pool
from fpo_core.sae.metadata import FORMAT, SaeMeta, parse_meta


@dataclass(frozen=True, kw_only=True, eq=False)
class Sae(SaeMeta):
    """A canonical autoencoder: `SaeMeta` and its arrays, in NumPy until `to` moves them.

    W_enc (d_in, d_sae), b_enc (d_sae,); threshold (jumprelu), r_mag and b_mag (gated), all
    (d_sae,); W_dec (d_sae, d_in) and b_dec (d_in,), or None in files without the decoder.
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
        """Whether features may be negative, as in abstopk."""
        return self.architecture == "abstopk"

    @property
    def has_decoder(self) -> bool:
        """Whether reconstruction is possible."""
        return self.W_dec is not None

    def to(self, xp: Ops, like: Array, *, decoder: bool = True) -> "Sae":
        """The same autoencoder with its arrays in the framework and on the device of `like`.

        Arrays are float32, or float64 if `like` is. `decoder=False` drops the decoder, which halves
        the memory.
        """
        # `xp` has no dtypes in common with NumPy: the name is what all frameworks share.
        wide = str(like.dtype).endswith("float64")
        arrays = {
            name: xp.asarray(_as(value, wide), like)
            for name, value in self.arrays(decoder=decoder).items()
        }
        return dataclasses.replace(self, **(dict.fromkeys(("W_dec", "b_dec")) | arrays))

    def arrays(self, *, decoder: bool = True) -> dict[str, Array]:
        """The arrays by name, without absent ones; those in a file are read."""
        own = {field.name for field in dataclasses.fields(Sae)} - {*SaeMeta.__dataclass_fields__}
        names = own if decoder else own - {"W_dec", "b_dec"}
        arrays = {name: getattr(self, name) for name in sorted(names)}
        return {
            name: np.asarray(value) if isinstance(value, FileArray) else value
            for name, value in arrays.items()
            if value is not None
        }

    def columns(self, indices: Array) -> "Sae":
        """The encoder restricted to features, (c,) indices in the framework of its arrays.

        For topk the result has no meaningful k, which counts among all features.
        """
        arrays = {
            # Transposed first, since gathering rows is faster than gathering columns.
            name: value.T[indices].T if name == "W_enc" else value[indices]
            for name, value in self.arrays(decoder=False).items()
        }
        return dataclasses.replace(self, **(dict.fromkeys(("W_dec", "b_dec")) | arrays))

    def encode(self, xp: Ops, h: Array) -> Array:
        """Feature activations: (..., d_in) -> (..., d_sae), in float32 (float64 where h is).

        Differentiable with respect to h; the choice of active features carries no gradient. Call
        `to` once before a loop: NumPy arrays are moved at each call.
        """
        sae, h = self._ready(xp, h)
        z, _, _ = transform_input(xp, h, self.input_transform)
        return sae.activate(xp, z @ sae.W_enc)

    def mean_pre_activation(self, xp: Ops, h: Array, mask: Array) -> Array:
        """Pre-activations averaged over masked tokens: (b, t, d_in), (b, t) -> (b, d_sae).

        The mean commutes with the linear map, so no (b, t, d_sae) array is needed.
        """
        return self.pooled_pre_activation(xp, h, lambda z: pool(xp, z, mask))

    def pooled_pre_activation(self, xp: Ops, h: Array, mean: Callable[[Array], Array]) -> Array:
        """As above for any mean over tokens, a function (..., d_in) -> (b, d_in): -> (b, d_sae)."""
        sae, h = self._ready(xp, h)
        z, _, _ = transform_input(xp, h, self.input_transform)
        return mean(z) @ sae.W_enc + sae.b_enc

    def activate(self, xp: Ops, projected: Array) -> Array:
        """Features from z W_enc without the bias: (..., d_sae) -> (..., d_sae)."""
        pre = projected + self.b_enc
        if self.architecture == "gated":
            # Gate and magnitude share one matrix, rescaled by exp(r_mag) (arXiv:2404.16014).
            magnitude = xp.relu(projected * xp.exp(self.r_mag) + self.b_mag)
            return mask_features(xp, magnitude, pre > 0)
        return activate(xp, pre, self.architecture, self.k, {"threshold": self.threshold})

    def reconstruct(self, xp: Ops, h: Array) -> Array:
        """The reconstruction of h from its features: (..., d_in) -> (..., d_in).

        Raises SaeError for an autoencoder without its decoder.
        """
        sae, h = self._ready(xp, h)
        return sae.decode(xp, sae.encode(xp, h), h)

    def decode(self, xp: Ops, features: Array, h: Array) -> Array:
        """The reconstruction from features of h: (..., d_sae), (..., d_in) -> (..., d_in).

        h itself is needed to undo the input transform. Raises SaeError as above.
        """
        if not self.has_decoder:
            raise SaeError(
                "this autoencoder was converted without its decoder, which reconstruction needs: "
                "convert it again without encoder_only"
            )
        sae, h = self._ready(xp, h)
        _, scale, shift = transform_input(xp, h, self.input_transform)
        if self.input_transform == "layer_norm":
            scale = scale - LAYER_NORM_EPS  # as SAELens undoes it
        out = (features @ sae.W_dec + sae.b_dec) * scale + shift
        # layer_norm's shift is the mean of h already.
        add_mean = self.centred and self.input_transform != "layer_norm"
        return out + h.sum(-1)[..., None] / self.d_in if add_mean else out

    def _ready(self, xp: Ops, h: Array) -> tuple["Sae", Array]:
        if h.shape[-1] != self.d_in:
            raise SaeError(
                f"the activations have width {h.shape[-1]}, expected d_in = {self.d_in}: the "
                f"autoencoder belongs to another model or site ({self.model_name or 'no model'}, "
                f"{self.hook or 'no hook'})"
            )
        h = xp.as_float(h)
        return (self.to(xp, h) if isinstance(self.W_enc, np.ndarray | FileArray) else self), h


def is_sae_file(path: Path) -> bool:
    """Whether a file says that it is an autoencoder in this package's format."""
    try:
        texts = open_safetensors(path).header.get("__metadata__")
    except SaeError:
        return False
    return isinstance(texts, dict) and texts.get("format") == FORMAT


def load_sae(path: str | Path, *, verify: bool = True) -> Sae:
    """Load a canonical file (docs/sae_format.md), whose matrices are read where they are used.

    `verify` reads the whole payload once and compares its hash: a changed weight would otherwise go
    unnoticed. Raises SaeError for anything irregular.
    """
    if Path(path).is_dir():
        raise SaeError(f"{path} is a folder, expected one file: run convert_sae on it")
    file = open_safetensors(path)
    meta = parse_meta(file.path, file.header)
    _check_tensors(file, meta)
    if verify:
        check_payload(file, meta)
    arrays: dict[str, Any] = {
        name: file.floats(name) if name in ("W_enc", "W_dec") else file.rows(name)
        for name in file.entries
    }
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
    names = set(file.entries)
    if names not in (set(shapes), set(shapes) - {"W_dec", "b_dec"}):
        raise SaeError(
            f"{file.path} holds {', '.join(sorted(names))}, expected {', '.join(shapes)}: convert "
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
