"""Sampling completions with transformers."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import nn
from transformers import GenerationConfig
from transformers.generation.logits_process import LogitsProcessor, LogitsProcessorList
from transformers.generation.streamers import BaseStreamer

from fpo_core.backend.draws import pick
from fpo_core.backend.guidance import GuidedPick
from fpo_core.backend.policy import OnTokens, Sampling
from fpo_torch import ops
from fpo_torch.guided import ValueReader


@contextlib.contextmanager
def _without_model_settings(model: Any) -> Iterator[None]:
    """Within, nothing of the model's generation_config.json holds: the policy itself is sampled."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    # transformers fills whatever a call leaves open from this attribute, beams and lengths too.
    kept, base.generation_config = base.generation_config, GenerationConfig()
    try:
        yield
    finally:
        base.generation_config = kept


class _Draws(LogitsProcessor):
    """Leaves one token of each row, so that the greedy choice is the sampled one."""

    def __init__(
        self,
        draws: torch.Tensor,
        width: int,
        sampling: Sampling,
        guided: GuidedPick | None,
        readers: Sequence[ValueReader],
    ) -> None:
        self._draws, self._width, self._sampling = draws, width, sampling
        self._guided, self._readers = guided, readers

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (n, v) -> the same shape, 0 at the sampled token and −∞ elsewhere."""
        u = self._draws[:, input_ids.shape[1] - self._width]
        if self._guided is None:
            tokens = pick(ops, scores, u, self._sampling.temperature, self._sampling.top_p)
        else:
            values = lambda candidates: [r(input_ids, candidates) for r in self._readers]  # noqa: E731
            tokens = self._guided(scores, u, values)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)


class _Streamer(BaseStreamer):
    """Passes tokens on as transformers samples them, a row until its completion ends."""

    def __init__(self, rows: int, stop: tuple[int, ...], on_tokens: OnTokens) -> None:
        self._open, self._stop, self._on_tokens = set(range(rows)), stop, on_tokens
        self._begun = False

    def put(self, value: torch.Tensor) -> None:
        """One token of each row, (n,), at every call but the first, which brings the prompts."""
        if self._begun:
            tokens = {row: int(value[row]) for row in sorted(self._open)}
            self._open -= {row for row, token in tokens.items() if token in self._stop}
            self._on_tokens(tokens)
        self._begun = True

    def end(self) -> None:
        """Nothing is left to pass on."""


def generate(
    model: nn.Module,
    prompts: list[np.ndarray],
    sampling: Sampling,
    draws: np.ndarray,
    device: torch.device,
    on_tokens: OnTokens | None = None,
    more: Callable[[torch.Tensor], dict[str, Any]] = lambda _: {},
    readers: Callable[[torch.Tensor], list[ValueReader]] = lambda mask: [],
) -> list[np.ndarray]:
    """Completions of token-id prompts, in one batch padded on the left; see `Policy.generate`.

    `more` gives further arguments for these ids (n, width), `readers` makes readers of the guide's
    values for the prompts' mask (n, t).
    """
    guide = sampling.guide
    shape = sampling.temperature, sampling.top_p
    guided = None if guide is None else GuidedPick.of(ops, guide, *shape)
    # On the left, so that every prompt ends where its completion begins.
    width = max(len(prompt) for prompt in prompts)
    tokens = torch.zeros((len(prompts), width), dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.from_numpy(np.asarray(prompt, np.int64))
        mask[row, width - len(prompt) :] = 1
    options: dict[str, Any] = {"do_sample": False}
    mask = mask.to(device)
    if sampling.temperature > 0 or guided is not None:
        drawn = _Draws(torch.from_numpy(draws).to(device), width, sampling, guided, readers(mask))
        options["logits_processor"] = LogitsProcessorList([drawn])
    if on_tokens is not None:
        options["streamer"] = _Streamer(len(prompts), sampling.stop, on_tokens)
    with _without_model_settings(model):
        out = model.generate(  # pyright: ignore[reportCallIssue]
            input_ids=tokens.to(device),
            attention_mask=mask,
            max_new_tokens=sampling.max_tokens,
            eos_token_id=list(sampling.stop) or None,
            pad_token_id=0,
            use_cache=True,
            **options,
            **more(tokens.to(device)),
        )
    sampled = [_until_stop(row, sampling.stop) for row in out[:, width:].cpu().numpy()]
    if guided is not None and guide is not None and guide.on_kl is not None:
        steps = torch.stack(guided.divergences, 1).cpu().numpy()
        guide.on_kl(np.array([row[: len(s)].sum() for row, s in zip(steps, sampled, strict=True)]))
    return sampled


def _until_stop(tokens: np.ndarray, stop: tuple[int, ...]) -> np.ndarray:
    ends = np.flatnonzero(np.isin(tokens, stop))
    return tokens[: ends[0] + 1 if len(ends) else None].astype(np.int32)
