"""Attention over a row run by run, each part with the library's own kernel."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from fpo_core.packing import Run
from fpo_torch.packed_attention import Settings


class RunByRun:
    """`Attention` that splits the row into prompts and completions."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, settings: Settings) -> Tensor:
        """See `fpo_torch.packed_attention.Attention`."""
        # One split and one cat: a slice's backward would write the whole row each time.
        sizes = [size for run in self._runs for size in run.parts]
        parts = iter(zip(*(x.split(sizes, dim=2) for x in (query, key, value)), strict=True))
        out: list[Tensor] = []
        for run in self._runs:
            prompt = next(parts) if run.prompt else None
            if prompt is not None:
                out.append(_attend(prompt[0], prompt[1], prompt[2], settings))
            for q, k, v in itertools.islice(parts, len(run.completions)):
                if prompt is None:
                    out.append(_attend(q, k, v, settings))
                else:
                    joined = torch.cat([prompt[1], k], 2), torch.cat([prompt[2], v], 2)
                    out.append(_attend(q, *joined, settings))
        return torch.cat(out, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor, settings: Settings) -> Tensor:
    """Queries are the last of the keys' tokens: (1, h, q, d), (1, g, k, d) -> (1, h, q, d)."""
    behind, ahead = query.shape[2], key.shape[2]
    scale, groups = settings.scaling, settings.groups
    windowed = settings.window is not None and ahead > settings.window
    if settings.softcap is not None:
        return _soft_capped(query, key, value, settings)
    if behind == ahead and not windowed:
        return scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=groups > 1
        )
    mask = _mask(behind, ahead, settings.window, query.device)
    grouped = query.device.type == "cpu"  # elsewhere groups and a mask together run slowly
    if not grouped:
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    return scaled_dot_product_attention(
        query, key, value, mask, scale=scale, enable_gqa=grouped and groups > 1
    )


def _mask(behind: int, ahead: int, window: int | None, device: torch.device) -> Tensor:
    keys = torch.arange(ahead, device=device)
    distance = keys[ahead - behind :, None] - keys
    seen = distance >= 0
    return seen if window is None else seen & (distance < window)


def _soft_capped(query: Tensor, key: Tensor, value: Tensor, settings: Settings) -> Tensor:
    assert settings.softcap is not None
    assert settings.scaling is not None
    key, value = (x.repeat_interleave(settings.groups, 1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * settings.scaling
    scores = torch.tanh(scores / settings.softcap) * settings.softcap
    mask = _mask(query.shape[2], key.shape[2], settings.window, query.device)
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1, dtype=torch.float32)
    return weights.to(query.dtype) @ value
