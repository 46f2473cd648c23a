"""Texts as sparse vectors of hashed n-grams, weighted by TF-IDF."""

import itertools
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

BITS = 18
"""A hash has so many: 2^18 columns."""


@dataclass(frozen=True)
class SparseRows:
    """A sparse matrix by rows."""

    columns: np.ndarray
    values: np.ndarray
    starts: np.ndarray

    def times(self, w: np.ndarray) -> np.ndarray:
        """X w: (n,)."""
        return np.add.reduceat(self.values * w[self.columns], self.starts)

    def transposed_times(self, r: np.ndarray, width: int) -> np.ndarray:
        """Xᵀ r: (width,)."""
        counts = np.diff([*self.starts, len(self.columns)])
        return np.bincount(self.columns, self.values * np.repeat(r, counts), width)


def counts_of(text: str) -> Counter[int]:
    """How often a text holds each hashed n-gram: words, pairs of words, and two to five characters
    within a word.
    """
    return Counter(
        zlib.crc32(gram.encode("utf-8", "replace")) >> (32 - BITS) for gram in _grams(text)
    )


def _grams(text: str) -> Iterator[str]:
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    yield from words
    yield from map(" ".join, itertools.pairwise(words))
    for word in words:
        padded = f" {word} "
        for n in range(2, 6):
            yield from ("#" + padded[i : i + n] for i in range(len(padded) - n + 1))


def rows_of(counted: Sequence[Counter[int]], idf: np.ndarray) -> SparseRows:
    """(1 + log count)·idf, each row of norm 1; an empty text has one entry of 0."""
    columns, values = [], []
    for counts in counted:
        place = np.fromiter(counts or [0], np.int64)
        value = (
            (1 + np.log(np.fromiter(counts.values(), float))) * idf[place]
            if counts
            else np.zeros(1)
        )
        columns.append(place)
        values.append(value / (np.linalg.norm(value) or 1))
    sizes = [len(place) for place in columns]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    return SparseRows(np.concatenate(columns), np.concatenate(values), starts)
