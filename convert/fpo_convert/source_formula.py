"""What a checkpoint computes, in its own terms: what every format's reader returns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fpo_convert.row_readers import Tensor, chunks
from fpo_core.errors import SaeError
from fpo_core.sae.hook import Hook

REQUIRED = {
    "relu": ("b_enc",),
    "topk": ("b_enc",),
    "abstopk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "r_mag", "b_mag"),
}


@dataclass(frozen=True)
class Options:
    """What a caller or a table of releases states in place of a source's files.

    `location` is the full path or hub address, from which some formats read layer and site.
    `overrides` replace keys of a SAELens configuration.
    """

    norm_factor: float | None = None
    centre: bool | None = None
    k: int | None = None
    hook: str | None = None
    model_name: str | None = None
    location: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    neuronpedia_id: str = ""
    untrained_tokens: Sequence[str] | None = None


@dataclass(frozen=True)
class Whitening:
    """z = (x − mean) @ matrix, undone by `inverse`: (d_in,), (d_in, d_in), (d_in, d_in)."""

    mean: np.ndarray
    matrix: np.ndarray
    inverse: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Source:
    """pre = n · ((T(x) − [subtract_b_dec] b_dec) W_enc + b_enc), then the activation.

    T centres if `centred`, then multiplies by `scale`, whitens, or applies `transform`. n is the
    norm of each decoder row if `rescale_by_decoder`, else 1; the decoder's rows are then divided
    by it. `already_centred` says that centring is in the weights, `without_value_bias`
    that x is TransformerLens's z. `has_decoder` is false for
    transcoders, whose decoder writes to another place than the hook. Tensors are SAELens's: W_enc
    (d_in, d_sae), W_dec (d_sae, d_in) and vectors.
    """

    files: tuple[Path, ...]
    architecture: str
    tensors: Mapping[str, Tensor]
    d_in: int
    d_sae: int
    k: int | None = None
    transform: str = "none"
    scale: float = 1.0
    whitening: Whitening | None = None
    subtract_b_dec: bool = False
    rescale_by_decoder: bool = False
    centred: bool = False
    already_centred: bool = False
    without_value_bias: bool = False
    threshold_factor: float = 1.0
    threshold_log: bool = False
    decoder_factor: np.ndarray | None = None
    has_decoder: bool = True
    format: str = ""
    hook: Hook | None = None
    model_name: str = ""
    untrained_tokens: tuple[str, ...] = ()
    neuronpedia_id: str = ""
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_names()
        shapes: dict[str, tuple[int, ...]] = {
            name: (self.d_sae,) for name in REQUIRED[self.architecture]
        }
        shapes["W_enc"] = (self.d_in, self.d_sae)
        if self.has_decoder or self.rescale_by_decoder:
            shapes["W_dec"] = (self.d_sae, self.d_in)
        if self.has_decoder or self.subtract_b_dec:
            shapes["b_dec"] = (self.d_in,)
        for name, expected in shapes.items():
            shape = self.tensors[name].shape
            scalar_threshold = name == "threshold" and shape in ((), (1,))
            if shape != expected and not scalar_threshold:
                hint = " (it is transposed)" if shape == expected[::-1] != expected else ""
                raise SaeError(
                    f"{self.where}: {name} has shape {shape}, expected {expected}{hint}: correct "
                    "d_in and d_sae in the configuration, or give the checkpoint's right format"
                )

    def _check_names(self) -> None:
        required = {"W_enc", *REQUIRED[self.architecture]}
        required |= {"W_dec"} if self.has_decoder or self.rescale_by_decoder else set()
        required |= {"b_dec"} if self.has_decoder or self.subtract_b_dec else set()
        allowed = required | {"W_dec", "b_dec"}
        allowed |= set() if self.has_decoder else {"W_skip", "affine_skip_connection"}
        missing, extra = required - set(self.tensors), set(self.tensors) - allowed
        if missing or extra:
            faults = [f"lacks {', '.join(sorted(missing))}"] if missing else []
            faults += [f"has unknown {', '.join(sorted(extra))}"] if extra else []
            raise SaeError(
                f"{self.where} {' and '.join(faults)}, expected {', '.join(sorted(required))} for "
                f"architecture {self.architecture}: use a complete checkpoint of that architecture"
            )

    @cached_property
    def decoder_norms(self) -> np.ndarray | None:
        """‖W_dec row‖ if pre-activations are multiplied by it: (d_sae,), else None."""
        if not self.rescale_by_decoder:
            return None
        norms = np.empty(self.d_sae)
        for part, rows in chunks(self.tensors["W_dec"]):
            # Row by row a dot product, without a squared copy of the rows.
            norms[part] = np.sqrt((rows[:, None, :] @ rows[:, :, None])[:, 0, 0])
        return norms

    @property
    def where(self) -> Path:
        """The weights file, for messages."""
        return self.files[0]


@dataclass(frozen=True)
class Format:
    """A published format: how a checkpoint is recognised, what it consists of, how it is read.

    `files` are all that `read` may open, relative to the checkpoint's folder: what is downloaded.
    A file of any name is left out, and {stem} stands for its name in that of another. `loaders` are
    the names that sae-lens's table of releases gives to the format. `read` raises SaeError for what
    it cannot represent.
    """

    name: str
    detect: Callable[[Path], bool]
    read: Callable[[Path, Options], Source]
    files: tuple[str, ...] = ()
    loaders: tuple[str, ...] = ()


def matrix_shape(path: Path, tensors: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    """The shape of a matrix. Raises SaeError where a checkpoint lacks it."""
    shape = tensors[name].shape if name in tensors else ()
    if len(shape) != 2:
        raise SaeError(f"{path} lacks the matrix {name}: give a complete checkpoint")
    return shape[0], shape[1]
