"""Holding out a share of the training prompts for validation, and limiting a split's rows."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fpo_core.pairs.pair import Pair


def in_holdout(pair: Pair, fraction: float, seed: int) -> bool:
    """Whether a pair belongs to the held-out share of prompts.

    It depends only on the prompt's text and the seed: all pairs of a prompt are in the same split,
    and adding pairs moves no other. An implicit prompt is the common prefix of one pair's sides and
    may differ between pairs, so make prompts explicit where several pairs share one.
    """
    prompt = json.dumps(pair.split()[0], sort_keys=True, default=str)
    digest = hashlib.blake2b(f"{seed}:{prompt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < fraction * 2**64


@dataclass(frozen=True)
class Part(Iterable[Pair]):
    """The pairs of `source` in the held-out share, or in the rest, at most `limit` of them."""

    source: Iterable[Pair]
    fraction: float = 0.0
    seed: int = 0
    held_out: bool = False
    limit: int | None = None

    def __iter__(self) -> Iterator[Pair]:
        return itertools.islice(self._pairs(), self.limit)

    def _pairs(self) -> Iterator[Pair]:
        if not self.fraction:
            return iter(self.source)
        return (p for p in self.source if in_holdout(p, self.fraction, self.seed) == self.held_out)
