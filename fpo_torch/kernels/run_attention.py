"""Attention over a packed row, run by run, with torch's own attention for each part.

Shapes: queries (1, h, t, d), keys and values (1, g, t, d) of a row of t tokens -> (1, h, t, d).

A prompt attends to itself, causally. A completion attends to its prompt's keys and values followed
by its own. Every part is a plain `scaled_dot_product_attention`, which saves what it always does.

It exists because one call over the whole row would compute every score and mask most of them: the
row of b pairs has t² scores, of which about 1 in 2b is seen.
"""

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
        # One split and one cat for the row: the backward of a slice writes an array of the whole
        # row, that of a split only its own part.
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
        """Queries of the last q of k tokens: (1, h, q, d), (1, g, k, d) twice -> (1, h, q, d)."""
        q_len, kv_len = query.shape[2], key.shape[2]
        scale, groups = settings.scaling, settings.groups
        windowed = settings.window is not None and kv_len > settings.window
        if q_len == kv_len and not windowed and settings.softcap is None:
            return scaled_dot_product_attention(
                query, key, value, is_causal=True, scale=scale, enable_gqa=groups > 1
            )
        # `is_causal` aligns the first query with the first key, not the last with the last, so a
        # completion after its prompt needs a mask.
        mask = self._mask(query, kv_len, settings.window)
        if settings.softcap is not None:
            return _soft_capped(query, key, value, mask, settings)
        grouped = query.device.type == "cpu"  # elsewhere groups and a mask together run slowly
        if not grouped:
            key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
        return scaled_dot_product_attention(
            query, key, value, mask, scale=scale, enable_gqa=grouped and groups > 1
        )

    def _mask(self, query: Tensor, kv_len: int, window: int | None) -> Tensor:
        """(q, k) 0 where a query sees a key, else −∞; cached, as every block asks for the same."""
        q_len = query.shape[2]
        name = q_len, kv_len, window
        if name not in self._masks:
            keys = torch.arange(kv_len, device=query.device)
            distance = keys[kv_len - q_len :, None] - keys
            hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
            blank = query.new_zeros(q_len, kv_len)
            self._masks[name] = blank.masked_fill_(hidden, -torch.inf)
        return self._masks[name]


def _soft_capped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, settings: Settings
) -> Tensor:
    """Attention whose scores are soft-capped, which torch's own has no argument for."""
    assert settings.softcap is not None
    assert settings.scaling is not None
    key, value = (x.repeat_interleave(settings.groups, 1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * settings.scaling
    scores = torch.tanh(scores / settings.softcap) * settings.softcap
    weights = (scores + mask).softmax(-1, dtype=torch.float32)
    return weights.to(query.dtype) @ value
