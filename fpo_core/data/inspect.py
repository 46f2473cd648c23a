"""What the model will see of a row: its tokens, and which of them are scored."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fpo_core.data.batches import Batch, collate
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.data.tokenizer import Tokenizer

Kind = Literal["prompt", "completion", "padding"]

STYLES: dict[Kind, tuple[str, str]] = {
    "prompt": ("cyan", "cyan underline"),
    "completion": ("green", "green underline"),
    "padding": ("bright_black", "bright_black"),
}
"""Two styles per kind, taken in turn so that neighbouring tokens can be told apart."""


@dataclass(frozen=True)
class Segment:
    """Neighbouring tokens of one kind. Completion tokens are scored (mask 1), no others."""

    kind: Kind
    mask: int
    ids: list[int]
    tokens: list[str]
    """The text that each id adds."""


@dataclass(frozen=True)
class InspectedSide:
    """One padded row of a batch, in segments from left to right; empty segments are left out."""

    side: Literal["chosen", "rejected"]
    segments: list[Segment]

    @property
    def text(self) -> str:
        """The whole row as text, padding left out."""
        return "".join("".join(s.tokens) for s in self.segments if s.kind != "padding")


@dataclass(frozen=True)
class InspectedRow:
    """Both sides of a pair as they stand in a batch."""

    position: int
    """Place in the data set, from 0."""
    row: int
    """Row (line, for JSONL) of the data file, from 1."""
    key: str
    sides: list[InspectedSide]

    def to_mapping(self) -> dict[str, Any]:
        """The row as JSON values."""
        return dataclasses.asdict(self)


def inspect_rows(
    data: TokenisedPairs, tokenizer: Tokenizer, count: int = 1, start: int = 0
) -> list[InspectedRow]:
    """The `count` rows from `start` on, padded together as in a batch of their own."""
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
    """Row i of a batch, cut where the mask that training uses changes."""
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
    """The text that each id adds behind the one before it; together, nearly the decoded whole.

    A piece of a character that is split over tokens is shown by its name in the vocabulary.
    """
    texts = []
    for i, id_ in enumerate(ids):
        before = tokenizer.decode(ids[i - 1 : i]) if i else ""
        both = tokenizer.decode(ids[max(i - 1, 0) : i + 1])
        text = both[len(before) :] if both.startswith(before) else tokenizer.decode([id_])
        is_part = "\N{REPLACEMENT CHARACTER}" in text
        texts.append(tokenizer.convert_ids_to_tokens(int(id_)) if is_part else text)
    return texts


def render(rows: Iterable[InspectedRow], console: Any) -> None:
    """Print rows on a rich console: prompt cyan, scored tokens green, padding as grey dots."""
    from rich.text import Text

    for row in rows:
        for side in row.sides:
            counts = ", ".join(f"{len(s.ids)} {s.kind}" for s in side.segments)
            line = Text().append(f"row {row.row} {side.side} ({counts} tokens)\n", "bold")
            for segment in side.segments:
                for i, token in enumerate(_shown(segment)):
                    line.append(token, STYLES[segment.kind][i % 2])
            console.print(line, end="\n\n", soft_wrap=True)


def _shown(segment: Segment) -> list[str]:
    if segment.kind == "padding":
        return ["·" * min(len(segment.ids), 40)]
    return [token.replace("\n", "⏎\n") for token in segment.tokens]
