"""Attention over a row run by run, each part with the library's own kernel."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from fpo_core.loss.packing import Run
from fpo_torch.kernels.packed_attention import Settings


class RunByRun:
    """`Attention` that splits the row into prompts and completions."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        self._masks: dict[tuple[int, int, int | None], Tensor] = {}

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, settings: Settings) -> Tensor:
        """See `fpo_torch.kernels.packed_attention.Attention`."""
        # One split and one cat: a slice's backward would write the whole row each time.
        sizes = [size for run in self._runs for size in run.parts]
        parts = iter(zip(*(x.split(sizes, dim=2) for x in (query, key, value)), strict=True))
        out: list[Tensor] = []
        for run in self._runs:
            prompt = next(parts) if run.prompt else None
            if prompt is not None:
                out.append(self._attend(prompt[0], prompt[1], prompt[2], settings))
            for q, k, v in itertools.islice(parts, len(run.completions)):
                if prompt is None:
                    out.append(self._attend(q, k, v, settings))
                else:
                    joined = torch.cat([prompt[1], k], 2), torch.cat([prompt[2], v], 2)
                    out.append(self._attend(q, *joined, settings))
        return torch.cat(out, 2)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, settings: Settings) -> Tensor:
        """Queries are the last of the keys' tokens: (1, h, q, d), (1, g, k, d) -> (1, h, q, d)."""
        behind, ahead = query.shape[2], key.shape[2]
        scale, groups = settings.scaling, settings.groups
        windowed = settings.window is not None and ahead > settings.window
        if behind == ahead and not windowed and settings.softcap is None:
            return scaled_dot_product_attention(
                query, key, value, is_causal=True, scale=scale, enable_gqa=groups > 1
            )
        mask = self._mask(query, ahead, settings.window)
        if settings.softcap is not None:
            return _soft_capped(query, key, value, mask, settings)
        grouped = query.device.type == "cpu"  # elsewhere groups and a mask together run slowly
        if not grouped:
            key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
        return scaled_dot_product_attention(
            query, key, value, mask, scale=scale, enable_gqa=grouped and groups > 1
        )

    def _mask(self, query: Tensor, ahead: int, window: int | None) -> Tensor:
        """(q, k) 0 where a key is seen, else −∞; the same for every block, so kept."""
        behind = query.shape[2]
        name = behind, ahead, window
        if name not in self._masks:
            keys = torch.arange(ahead, device=query.device)
            distance = keys[ahead - behind :, None] - keys
            hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
            blank = query.new_zeros(behind, ahead)
            self._masks[name] = blank.masked_fill_(hidden, -torch.inf)
        return self._masks[name]


def _soft_capped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, settings: Settings
) -> Tensor:
    assert settings.softcap is not None
    assert settings.scaling is not None
    key, value = (x.repeat_interleave(settings.groups, 1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * settings.scaling
    scores = torch.tanh(scores / settings.softcap) * settings.softcap
    weights = (scores + mask).softmax(-1, dtype=torch.float32)
    return weights.to(query.dtype) @ value
