"""Rotary frequencies by the formulas of transformers' `modeling_rope_utils`, in NumPy.

A query or key rotates its i-th pair of numbers by position · inverse_frequencies[i] and is
multiplied by `scale`. The scaled kinds: linear (kaiokendev), YaRN (arXiv:2309.00071), LongRoPE
(arXiv:2402.13753), Llama 3.1's.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fpo_core.errors import ModelError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rotary:
    """The rotation of one block's queries and keys."""

    kind: str
    inverse_frequencies: Floats
    """(r / 2,), for the first r numbers of a head."""
    scale: float = 1.0

    @property
    def dims(self) -> int:
        """r, the numbers of a head that rotate."""
        return 2 * len(self.inverse_frequencies)


def rotary_of(rope: dict[str, Any], config: Any) -> Rotary | None:
    """The rotation that rope parameters name, with the sizes of transformers' `config`.

    None where there are no parameters, or the family splits its heads in a way of its own (MLA).
    Raises ModelError for a kind that is not known here.
    """
    if not rope.get("rope_theta") or hasattr(config, "qk_rope_head_dim"):
        return None
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in _KINDS:
        raise ModelError(
            f"rope_parameters of this {config.model_type} have the rope_type {kind!r}, expected "
            f"one of {', '.join(_KINDS)}: use the torch backend"
        )
    heads = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    dims = int(heads * (rope.get("partial_rotary_factor") or 1.0))
    powers = rope["rope_theta"] ** -(np.arange(0, dims, 2) / dims)
    frequencies, scale = _KINDS[kind](powers, rope, config)
    return Rotary(kind, frequencies, scale)


Formula = Callable[[Floats, dict[str, Any], Any], tuple[Floats, float]]
"""(θ^(−2i/r), rope parameters, config) -> inverse frequencies and scale."""


def _plain(powers: Floats, rope: dict[str, Any], config: Any) -> tuple[Floats, float]:
    del rope, config
    return powers, 1.0


def _linear(powers: Floats, rope: dict[str, Any], config: Any) -> tuple[Floats, float]:
    del config
    return powers / rope["factor"], 1.0


def _llama3(powers: Floats, rope: dict[str, Any], config: Any) -> tuple[Floats, float]:
    del config
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    # Rotations within the original context: few of them are slowed by the factor, many are kept.
    rotations = rope["original_max_position_embeddings"] * powers / (2 * np.pi)
    smooth = np.clip((rotations - low) / (high - low), 0, 1)
    return powers * (smooth + (1 - smooth) / factor), 1.0


def _longrope(powers: Floats, rope: dict[str, Any], config: Any) -> tuple[Floats, float]:
    # The short factors: longer sequences are beyond the model's limit (`length_limit`).
    original = rope["original_max_position_embeddings"]
    factor = rope.get("factor") or config.max_position_embeddings / original
    usual = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    scale = rope.get("attention_factor")
    return powers / np.asarray(rope["short_factor"]), usual if scale is None else scale


def _yarn(powers: Floats, rope: dict[str, Any], config: Any) -> tuple[Floats, float]:
    dims, base = 2 * len(powers), rope["rope_theta"]
    original = rope["original_max_position_embeddings"]
    factor = rope.get("factor") or config.max_position_embeddings / original

    def dimension(rotations: float) -> float:
        """The dimension that turns this often within the original context."""
        return dims * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low, high = dimension(rope.get("beta_fast") or 32), dimension(rope.get("beta_slow") or 1)
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dims - 1)
    # transformers' guard against a ramp of no width.
    ramp = np.clip((np.arange(len(powers)) - low) / ((high - low) or 0.001), 0, 1)
    return powers * (1 - ramp + ramp / factor), _yarn_scale(rope, factor)


def _yarn_scale(rope: dict[str, Any], factor: float) -> float:
    def mscale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if rope.get("attention_factor") is not None:
        return rope["attention_factor"]
    both = rope.get("mscale"), rope.get("mscale_all_dim")
    return mscale(both[0]) / mscale(both[1]) if both[0] and both[1] else mscale(1.0)


_KINDS: dict[str, Formula] = {
    "default": _plain,
    "linear": _linear,
    "dynamic": _plain,  # within the model's limit
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
    "su": _longrope,
    "mrope": _plain,  # of text, whose three positions are equal
}
