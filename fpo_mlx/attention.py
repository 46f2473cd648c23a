"""Has mlx-lm's attention modules see and rotate what transformers' do.

mlx-lm reads the sliding window of few families and the rotary settings of each in its own way. What
it leaves out would change log-probabilities silently, so both come from `attention_of` here: masks
are narrowed where a block has a window, rotary modules are measured and replaced where they differ.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx_lm.models.base import create_causal_mask

from fpo_core.errors import ModelError, SaeError
from fpo_core.models.attention import Attention
from fpo_core.models.rotary import Rotary
from fpo_core.sae.tap_points import tap_point
from fpo_mlx.hooks import intercept

_TOLERANCE = 1e-4
"""On angle and scale, relative; float32 rounds angles at position 1 by about 1e-6."""


def attention_module(block: nn.Module) -> tuple[nn.Module, str]:
    """The attention of a block and the name of its output projection; SaeError for none known."""
    modules = dict(block.named_modules())
    path, _, output = tap_point("z", modules.__contains__).path.rpartition(".")
    return modules[path], output


def adopt(stack: Sequence[nn.Module], attention: Attention) -> None:
    """Give blocks the windows and rotations of `attention`.

    Raises ModelError for a block with a window whose attention module is not known.
    """
    narrow = any(attention.windows)
    for number, block in enumerate(stack):
        window = attention.windows[number]
        try:
            module, _ = attention_module(block)
        except SaeError:
            if window is None:
                continue
            raise ModelError(
                f"block {number} has a sliding window of {window} tokens, but no attention module "
                "of a known name to apply it in: use the torch backend"
            ) from None
        if narrow:
            _narrow(module, window)
        _rotate(module, attention.rotary[number])


def _narrow(module: nn.Module, window: int | None) -> None:
    signature = inspect.signature(type(module).__call__)

    def call(inner: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(module, *args, **kwargs)
        values = bound.arguments
        cache = values.get("cache")
        mask = _mask(values.get("mask"), cache, window, args[0].shape[1])
        # Gemma 2's module has an axis more, for groups of heads: it would take the sequences of a
        # padded batch, (n, 1, t, keys), for heads. A packed row's mask has the axis already.
        grouped = hasattr(module, "attn_logit_softcapping") and not hasattr(cache, "rectangle")
        if grouped and isinstance(mask, mx.array) and mask.ndim == 4:
            mask = mask[:, :, None]
        values["mask"] = mask
        return inner(*bound.args, **bound.kwargs)

    intercept(module, call)


def _mask(mask: Any, cache: Any, window: int | None, length: int) -> Any:
    """The mask of `length` queries, in place of the one that the model would have them use."""
    # A rotating cache holds its keys out of order, and only the window's. Rectangles of a packed
    # row get masks with windows from their own cache, and those of prompts know no padding.
    if hasattr(cache, "max_size") or hasattr(cache, "rectangle"):
        return mask
    if cache is None:
        is_array = isinstance(mask, mx.array)
        return _causal(length, 0, window) if is_array or length > (window or length) else mask
    if window is None:
        return mask
    keys = mask.shape[-1] if isinstance(mask, mx.array) else cache.offset + length
    if keys <= window:
        return mask
    visible = _causal(length, keys - length, window)
    return mask & visible if isinstance(mask, mx.array) else visible


@functools.lru_cache(maxsize=4)  # every block of a pass asks for the same
def _causal(length: int, offset: int, window: int | None) -> mx.array:
    return create_causal_mask(length, offset, window_size=window)


class RotaryEmbedding(nn.Module):
    """Rotates by given frequencies, (…, t, head) -> (…, t, head), as `nn.RoPE` does by its own."""

    def __init__(self, rotary: Rotary, *, traditional: bool) -> None:
        super().__init__()
        self.dims, self.traditional, self.scale = rotary.dims, traditional, rotary.scale
        # The underscore keeps it out of the parameters.
        self._frequencies = mx.array((1 / rotary.inverse_frequencies).astype(np.float32))

    def __call__(self, x: mx.array, offset: int | mx.array = 0) -> mx.array:
        """Queries or keys from position `offset` on."""
        if self.scale != 1:
            x = x.at[..., : self.dims].multiply(self.scale)
        return mx.fast.rope(
            x,
            self.dims,
            traditional=self.traditional,
            base=None,
            scale=1.0,
            offset=offset,
            freqs=self._frequencies,
        )


def _rotate(module: nn.Module, rotary: Rotary | None) -> None:
    """Replace a rotary module that rotates otherwise than `rotary`."""
    rope = module.get("rope")
    if rotary is None or not isinstance(rope, nn.Module) or not _rotates(rope):
        return
    traditional = bool(getattr(rope, "traditional", False))
    if not _agrees(rope, rotary, traditional=traditional):
        dict.__setitem__(module, "rope", RotaryEmbedding(rotary, traditional=traditional))


def _rotates(rope: nn.Module) -> bool:
    """Whether it rotates at all: some families give blocks without positions an identity."""
    return isinstance(rope, nn.RoPE) or hasattr(rope, "dims") or hasattr(rope, "dim")


def _agrees(rope: Any, rotary: Rotary, *, traditional: bool) -> bool:
    dims = getattr(rope, "dims", None) or rope.dim
    # mlx-lm's dynamic rotation takes no array of offsets, which packed rows have.
    if dims != rotary.dims or rotary.kind == "dynamic":
        return False
    # The first number of each pair is 1, the second 0: position 1 turns them to cosine and sine.
    first = np.arange(0, dims, 2) if traditional else np.arange(dims // 2)
    second = first + (1 if traditional else dims // 2)
    x = np.zeros((1, 1, 2, dims), np.float32)
    x[..., first] = 1
    turned = np.array(rope(mx.array(x)))[0, 0, 1]
    angles = np.arctan2(turned[second], turned[first])
    scales = np.hypot(turned[second], turned[first])
    return np.allclose(angles, rotary.inverse_frequencies, rtol=_TOLERANCE, atol=0) and np.allclose(
        scales, rotary.scale, rtol=_TOLERANCE
    )
