"""Holding out part of the training pairs, and taking only the first of a split."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fpo_core.data.pairs import Pair


def in_holdout(pair: Pair, fraction: float, seed: int) -> bool:
    """Whether a pair belongs to the held-out share of prompts.

    It depends on the prompt's text and the seed alone: all pairs of a prompt fall on one side, and
    pairs added later move none of those that were there. An implicit prompt is whatever a pair's
    own sides have in common, so keep prompts explicit where several pairs share one.
    """
    prompt = json.dumps(pair.split()[0], sort_keys=True, default=str)
    digest = hashlib.blake2b(f"{seed}:{prompt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < fraction * 2**64


@dataclass(frozen=True)
class Part(Iterable[Pair]):
    """The pairs of `source` that are held out (or not), at most `limit` of them."""

    source: Iterable[Pair]
    fraction: float = 0.0
    seed: int = 0
    held: bool = False
    limit: int | None = None

    def __iter__(self) -> Iterator[Pair]:
        return itertools.islice(self._belonging(), self.limit)

    def _belonging(self) -> Iterator[Pair]:
        if not self.fraction:
            return iter(self.source)
        return (p for p in self.source if in_holdout(p, self.fraction, self.seed) == self.held)
