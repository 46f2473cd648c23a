"""The tokens that the model sees of a pair, and which of them are scored."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fpo_core.data.batches import Batch, collate
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.data.tokenizer import Tokenizer

Kind = Literal["prompt", "completion", "padding"]


@dataclass(frozen=True)
class Segment:
    """Consecutive tokens of one kind. Completion tokens have mask 1 and are scored."""

    kind: Kind
    mask: int
    ids: list[int]
    tokens: list[str]
    """The text that each id adds."""


@dataclass(frozen=True)
class InspectedSide:
    """One padded row of a batch as segments from left to right, empty ones omitted."""

    side: Literal["chosen", "rejected"]
    segments: list[Segment]

    @property
    def text(self) -> str:
        """The row as text, without padding."""
        return "".join("".join(s.tokens) for s in self.segments if s.kind != "padding")


@dataclass(frozen=True)
class InspectedRow:
    """Both sides of a pair as rows of a batch."""

    position: int
    """Index in the data set, from 0."""
    row: int
    """Row (line, for JSONL) of the data file, from 1."""
    key: str
    sides: list[InspectedSide]


def inspect_rows(
    data: TokenisedPairs, tokenizer: Tokenizer, count: int = 1, start: int = 0
) -> list[InspectedRow]:
    """The `count` pairs from `start` on, padded together as one batch."""
    positions = list(range(start, min(start + count, len(data))))
    if not positions:
        return []
    batch = collate(data, positions)
    return [
        InspectedRow(
            position=position,
            row=data[position].row,
            key=data[position].key.hex(),
            sides=[
                InspectedSide("chosen", _segments(batch, i, tokenizer)),
                InspectedSide("rejected", _segments(batch, i + batch.pairs, tokenizer)),
            ],
        )
        for i, position in enumerate(positions)
    ]


def _segments(batch: Batch, i: int, tokenizer: Tokenizer) -> list[Segment]:
    """Row i of a batch, cut where the completion mask that training uses changes."""
    ids = batch.tokens[i].tolist()
    mask = batch.completion_mask()[i].astype(int).tolist()
    pieces = token_texts(tokenizer, ids[: batch.lengths[i]])
    cuts = [0, *(at for at in range(1, len(ids)) if mask[at] != mask[at - 1]), len(ids)]
    segments = []
    for at, end in itertools.pairwise(cuts):
        kind: Kind = "completion" if mask[at] else "prompt" if at == 0 else "padding"
        segments.append(Segment(kind, mask[at], ids[at:end], pieces[at:end]))
    return segments


def token_texts(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """The text that each id adds to the one before; joined, close to the decoded sequence.

    A token that holds part of a character is shown by its name in the vocabulary.
    """
    return TokenTexts(tokenizer)(ids)


class TokenTexts:
    """`token_texts` of many sequences: what an id adds behind another is worked out once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decode = functools.cache(lambda *ids: tokenizer.decode(list(ids)))
        self._added = functools.cache(self._text)

    def __call__(self, ids: Sequence[int]) -> list[str]:
        """The text of each id."""
        known = [int(id_) for id_ in ids]
        return [
            self._added(before, id_) for before, id_ in zip([None, *known[:-1]], known, strict=True)
        ]

    def _text(self, before: int | None, id_: int) -> str:
        # Decoding single ids would lose the space that SentencePiece drops at the start of a text,
        # so each id is decoded together with its predecessor.
        first = "" if before is None else self._decode(before)
        both = self._decode(id_) if before is None else self._decode(before, id_)
        text = both[len(first) :] if both.startswith(first) else self._decode(id_)
        is_part = "\N{REPLACEMENT CHARACTER}" in text
        return self._tokenizer.convert_ids_to_tokens(id_) if is_part else text
