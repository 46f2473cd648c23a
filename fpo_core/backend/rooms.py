"""Sampling where some prompts leave a model's positions less room than the longest completion."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from fpo_core.backend.guidance import Guide
from fpo_core.backend.policy import OnTokens, Sampling

Generate = Callable[[list[np.ndarray], Sampling, np.ndarray, OnTokens | None], list[np.ndarray]]
"""(prompts, sampling, draws, on_tokens) -> a completion of each, `sampling.max_tokens` at most."""


def generate_by_room(
    generate: Generate,
    prompts: Sequence[np.ndarray],
    rooms: Sequence[int],
    sampling: Sampling,
    draws: np.ndarray,
    on_tokens: OnTokens | None,
) -> list[np.ndarray]:
    """Completions of prompts that have so much room each, those with as much in one batch.

    In one batch of all, the longest prompt would cut the others' completions short.
    """
    completions = [np.zeros(0, np.int32)] * len(prompts)
    divergences = np.zeros(len(prompts))
    for room in sorted(set(rooms)):
        places = [i for i, other in enumerate(rooms) if other == room]
        of_room = dataclasses.replace(
            sampling, max_tokens=room, guide=_keeping(sampling, divergences, places)
        )
        batch = [prompts[i] for i in places], of_room, draws[places, :room]
        found = generate(*batch, _renumbered(on_tokens, places))
        for place, completion in zip(places, found, strict=True):
            completions[place] = completion
    if sampling.guide is not None and sampling.guide.on_kl is not None:
        sampling.guide.on_kl(divergences)
    return completions


def _keeping(sampling: Sampling, divergences: np.ndarray, places: list[int]) -> Guide | None:
    def keep(told: np.ndarray) -> None:
        divergences[places] = told

    guide = sampling.guide
    return None if guide is None else dataclasses.replace(guide, on_kl=guide.on_kl and keep)


def _renumbered(on_tokens: OnTokens | None, places: list[int]) -> OnTokens | None:
    if on_tokens is None:
        return None
    return lambda tokens: on_tokens({places[i]: token for i, token in tokens.items()})
