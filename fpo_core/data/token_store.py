"""Tokenised pairs in two files: token ids in one, an index record per pair in another.

`<split>.tokens` holds little-endian int32 ids: prompt, chosen completion and rejected completion of
each pair in turn. `<split>.index` holds one `INDEX` record per pair.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt

from fpo_core.errors import DataError
from fpo_core.io.file_array import FileArray

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]

TOKEN = np.dtype("<i4")
KEY_BYTES = 16
INDEX = np.dtype(
    [
        ("start", "<i8"),
        ("row", "<i8"),
        ("prompt", "<i4"),
        ("chosen", "<i4"),
        ("rejected", "<i4"),
        ("key", "u1", (KEY_BYTES,)),
    ]
)
"""Offset of a pair's first id, its row in the data file, the lengths of its parts, and its key."""
_AT_ONCE = 1 << 20
"""Ids that are looked through at once."""


def row_key(ids: Int32s, prompt: int, chosen: int) -> bytes:
    """The 16-byte key of a pair: a hash of its ids and of the lengths of prompt and chosen.

    It is the same on every machine and changes with any token id and with the completion mask.
    """
    lengths = np.array([prompt, chosen], TOKEN).tobytes()
    body = np.ascontiguousarray(ids, TOKEN).tobytes()
    return hashlib.blake2b(lengths + body, digest_size=KEY_BYTES).digest()


@dataclass(frozen=True, slots=True)
class TokenisedPair:
    """One pair as token ids: the shared prompt, both completions, and the pair's key."""

    prompt: Int32s
    chosen: Int32s
    rejected: Int32s
    key: bytes
    row: int = 0

    @property
    def length(self) -> int:
        """Tokens of the longer side, prompt included."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


def pack(pairs: Iterable[tuple[int, Sequence[int], Sequence[int], Sequence[int]]]) -> "Packed":
    """Pairs as (row, prompt, chosen, rejected) -> their ids in one array, and index records."""
    ids: list[Int32s] = []
    records = []
    start = 0
    for row, prompt, chosen, rejected in pairs:
        body = np.array([*prompt, *chosen, *rejected], TOKEN)
        key = np.frombuffer(row_key(body, len(prompt), len(chosen)), np.uint8)
        records.append((start, row, len(prompt), len(chosen), len(rejected), key))
        ids.append(body)
        start += len(body)
    tokens = np.concatenate(ids) if ids else np.empty(0, TOKEN)
    return Packed(tokens, np.array(records, INDEX))


@dataclass(frozen=True, slots=True)
class Packed:
    """Pairs as two arrays: ids (n_tokens,) int32 and `INDEX` records (n,)."""

    tokens: Int32s
    index: npt.NDArray[Any]


class Preferences:
    """The preferences of a split: which rows say the opposite of each other. 32 bytes a row."""

    def __init__(self) -> None:
        self._index: list[npt.NDArray[Any]] = []
        self._opposites: list[bytes] = []

    def append(self, packed: Packed) -> None:
        """Add the pairs of `packed`."""
        self._index.append(packed.index[["row", "key"]].copy())
        for start, _, prompt, chosen, rejected, _ in packed.index:
            sides = np.split(packed.tokens[start:], np.cumsum([prompt, chosen, rejected]))
            swapped = np.concatenate([sides[0], sides[2], sides[1]])
            self._opposites.append(row_key(swapped, int(prompt), int(rejected)))

    def conflicts(self) -> list[int]:
        """Rows whose prompt and replies another row has, preferred the other way."""
        if not self._index:
            return []
        index = np.concatenate(self._index)
        keys = np.ascontiguousarray(index["key"]).view(f"S{KEY_BYTES}")[:, 0]
        opposites = np.array(self._opposites, f"S{KEY_BYTES}")
        return index["row"][np.isin(opposites, keys)].tolist()


class RowWriter:
    """Appends packed pairs to `<folder>/<split>.tokens` and `.index`, in constant memory."""

    def __init__(self, folder: Path, split: str) -> None:
        self._tokens = (folder / f"{split}.tokens").open("wb")
        self._index = (folder / f"{split}.index").open("wb")
        self._start = 0

    def append(self, packed: Packed) -> None:
        """Append `packed`, with its offsets shifted to the end of the file."""
        index = packed.index.copy()
        index["start"] += self._start
        self._start += len(packed.tokens)
        self._tokens.write(packed.tokens.astype(TOKEN, copy=False).tobytes())
        self._index.write(index.tobytes())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tokens.close()
        self._index.close()


class TokenisedPairs(Sequence[TokenisedPair]):
    """Tokenised pairs of one split, their ids in memory or in a file."""

    def __init__(self, tokens: Int32s | FileArray, index: npt.NDArray[Any]) -> None:
        self._tokens = tokens
        self._index = index

    @classmethod
    def open(cls, folder: Path, split: str) -> Self:
        """Open the files of a `RowWriter`. Raises DataError where they are damaged."""
        try:
            tokens = _file_array(folder / f"{split}.tokens", TOKEN)
            index = _file_array(folder / f"{split}.index", INDEX)[:]
        except (OSError, ValueError) as error:
            raise DataError(
                f"{folder}: tokenised rows of {split} cannot be read: {error}"
            ) from None
        pairs = cls(tokens, index)
        if not pairs._is_intact():
            raise DataError(f"{folder}: tokenised rows of {split} are damaged: delete the folder")
        return pairs

    def num_tokens(self, rows: Int64s) -> int:
        """Tokens of the pairs at `rows`, prompts counted on both sides."""
        index = self._index[rows]
        return int((2 * index["prompt"] + index["chosen"] + index["rejected"]).sum())

    def fingerprint(self) -> str:
        """SHA-256 of the pairs' keys in order: it changes with any token, mask or position."""
        return hashlib.sha256(np.ascontiguousarray(self._index["key"]).tobytes()).hexdigest()

    @classmethod
    def from_lists(
        cls, pairs: Iterable[tuple[Sequence[int], Sequence[int], Sequence[int]]]
    ) -> Self:
        """Pairs in memory from (prompt, chosen, rejected) token ids, rows numbered from 1."""
        packed = pack((row, *pair) for row, pair in enumerate(pairs, start=1))
        return cls(packed.tokens, packed.index)

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, index: int) -> TokenisedPair: ...
    @overload
    def __getitem__(self, index: slice) -> "TokenisedPairs": ...
    def __getitem__(self, index: int | slice) -> "TokenisedPair | TokenisedPairs":
        if isinstance(index, slice):
            return TokenisedPairs(self._tokens, self._index[index])
        record = self._index[index]
        start, prompt, chosen, rejected = (
            int(record[name]) for name in ("start", "prompt", "chosen", "rejected")
        )
        ids = np.asarray(self._tokens[start : start + prompt + chosen + rejected])
        return TokenisedPair(
            prompt=ids[:prompt],
            chosen=ids[prompt : prompt + chosen],
            rejected=ids[prompt + chosen :],
            key=record["key"].tobytes(),
            row=int(record["row"]),
        )

    def lengths(self) -> Int64s:
        """Tokens of each pair's longer side, prompt included: (n,); batches are planned from it."""
        longer = np.maximum(self._index["chosen"], self._index["rejected"])
        return np.asarray(self._index["prompt"] + longer, np.int64)

    def prompt_lengths(self) -> Int64s:
        """Tokens of each pair's prompt: (n,)."""
        return np.asarray(self._index["prompt"], np.int64)

    def prompts(self, rows: Int64s | None = None) -> Int64s:
        """Numbers of the prompts of the pairs at `rows`, or of all, from 0 as they appear: (n,).

        Pairs have the same number where their prompts have the same tokens. Reads every prompt, for
        all pairs once.
        """
        return self._all_prompts if rows is None else self._prompts(self._index[rows])

    @cached_property
    def _all_prompts(self) -> Int64s:
        return self._prompts(self._index)

    def _prompts(self, index: npt.NDArray[Any]) -> Int64s:
        numbers: dict[bytes, int] = {}
        at = zip(index["start"].tolist(), index["prompt"].tolist(), strict=True)
        prompts = (self._tokens[start : start + count] for start, count in at)
        digests = (hashlib.blake2b(np.asarray(ids).tobytes()).digest() for ids in prompts)
        return np.array([numbers.setdefault(digest, len(numbers)) for digest in digests], np.int64)

    def keys(self) -> list[bytes]:
        """The key of every pair, in order."""
        return [key.tobytes() for key in self._index["key"]]

    def token_outside(self, size: int) -> tuple[int, int] | None:
        """Row of the data file and id of the first token that is not in 0 … size − 1."""
        # A split of a sliced store has gaps between its pairs, so hits are looked up by pair.
        for place in self._outside(size):
            pair = int(np.searchsorted(self._index["start"], place, side="right")) - 1
            if pair >= 0 and place < self._end(pair):
                return int(self._index["row"][pair]), int(self._tokens[place : place + 1][0])
        return None

    def _outside(self, size: int) -> Iterator[int]:
        """Places of ids that are not in 0 … size − 1."""
        for start in range(0, len(self._tokens), _AT_ONCE):
            ids = self._tokens[start : start + _AT_ONCE]
            yield from (start + np.flatnonzero((ids >= size) | (ids < 0))).tolist()

    def _end(self, pair: int) -> int:
        record = self._index[pair]
        return int(sum(record[name] for name in ("start", "prompt", "chosen", "rejected")))

    def source_rows(self) -> Int64s:
        """The row of the data file of each pair, from 1 (the line, for JSONL): (n,)."""
        return np.asarray(self._index["row"], np.int64)

    def _is_intact(self) -> bool:
        """Whether offsets agree with lengths, and both with the ids."""
        sizes = sum(self._index[name].astype(np.int64) for name in ("prompt", "chosen", "rejected"))
        ends = np.cumsum(sizes)
        return np.array_equal(self._index["start"], ends - sizes) and ends[-1] == len(self._tokens)


def _file_array(path: Path, dtype: np.dtype) -> FileArray:
    count, rest = divmod(path.stat().st_size, dtype.itemsize)
    if rest or not count:
        raise ValueError(f"{path.name} does not hold whole records")
    return FileArray(path, dtype, (count,), 0, _changed)


def _changed(text: str) -> DataError:
    return DataError(f"{text}: leave the cache alone while a run reads it, and start again")
