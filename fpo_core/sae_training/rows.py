"""Texts as rows of tokens, and which of their tokens an autoencoder is trained on."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np

from fpo_core.config import DataConfig, SaeTrainConfig
from fpo_core.data.batches import PAD_ID
from fpo_core.data.chat_rows import chat_rows, raw_rows
from fpo_core.data.sources import read_pairs
from fpo_core.data.splits import Part
from fpo_core.data.tokenizer import Tokenizer
from fpo_core.errors import DataError
from fpo_core.io.hub import advice, reached
from fpo_core.pairs.pair import Pair

Row = Sequence[int]


@dataclass(frozen=True)
class Rows:
    """Token ids of texts, to train on and held out."""

    train: list[Row]
    held_out: list[Row]

    def digest(self) -> str:
        """A hash of all of them."""
        total = hashlib.sha256()
        for row in (*self.train, (-1,), *self.held_out):
            total.update(np.array([*row, -2], np.int32).tobytes())
        return total.hexdigest()


@dataclass(frozen=True)
class ForwardBatch:
    """Rows padded on the right to one width: ids (n, t), and at which the activations are read."""

    tokens: np.ndarray
    read: np.ndarray

    @property
    def count(self) -> int:
        """Tokens that are read."""
        return int(self.read.sum())


def read_rows(config: SaeTrainConfig, tokenizer: Tokenizer) -> Rows:
    """The texts that settings name: pairs under the chat template (raw without one), plain texts.

    Raises DataError where either part is empty, or a source cannot be read.
    """
    train: list[Row] = []
    held_out: list[Row] = []
    if config.data is not None:
        splits = _splits(config)
        train += _of_pairs(splits["train"], tokenizer, config.max_seq_length)
        held_out += _of_pairs(splits["valid"], tokenizer, config.max_seq_length)
    if config.text is not None:
        texts = islice(read_plain_texts(config.text), config.max_rows)
        for text in texts:
            row = tokenizer(text, verbose=False).input_ids[: config.max_seq_length]
            (held_out if _holds_out(text, config) else train).append(row)
    for part, name in ((train, "to train on"), (held_out, "held out")):
        if not any(len(row) > 1 for row in part):
            raise DataError(
                f"no text is {name}, expected some: give more pairs or texts, or another "
                "valid_fraction"
            )
    return Rows(train, held_out)


def _splits(config: SaeTrainConfig) -> dict[str, Iterable[Pair]]:
    splits = read_pairs(DataConfig(data=str(config.data), columns=config.columns))
    share = 0.0 if "valid" in splits else config.valid_fraction
    parts = {
        "train": Part(splits["train"], share, config.seed, False, config.max_rows),
        "valid": Part(
            splits.get("valid", splits["train"]), share, config.seed, True, config.max_rows
        ),
    }
    return dict(parts)


def _of_pairs(pairs: Iterable[Pair], tokenizer: Tokenizer, width: int) -> list[Row]:
    listed = list(pairs)
    chat = chat_rows(listed, tokenizer, width)
    return list(raw_rows(listed, tokenizer, width) if chat is None else chat)


def _holds_out(text: str, config: SaeTrainConfig) -> bool:
    digest = hashlib.blake2b(f"{config.seed}:{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < config.valid_fraction * 2**64


def read_plain_texts(name: str) -> Iterable[str]:
    """The texts of a file, or of the column `text` of a hub data set's training split.

    Raises DataError where there are none.
    """
    from fpo_core.data.sources import looks_local
    from fpo_core.evaluation.texts import read_texts

    path = Path(name).expanduser()
    if path.exists() or path.suffix or looks_local(name):
        return read_texts(path)
    return _hub_texts(name)


def _hub_texts(name: str) -> Iterator[str]:
    import datasets

    address, _, revision = name.partition("@")
    repo, _, configuration = address.partition(":")
    try:
        with reached(repo, "dataset", revision or None):
            rows = datasets.load_dataset(
                repo, configuration or None, revision=revision or None, split="train"
            )
    except Exception as error:  # `datasets` raises whatever the network or a loader raised
        raise DataError(
            advice(repo, error)
            or f"text is {name!r}, which is no file and cannot be loaded from the hub: check it"
        ) from None
    if "text" not in rows.column_names:
        raise DataError(
            f"{name} has the columns {', '.join(rows.column_names)}, expected text: write its "
            "texts to a .jsonl file with `text`"
        )
    return (str(text) for text in rows["text"])


def forward_batches(
    rows: Iterable[Row], excluded: Iterable[int], budget: int
) -> list[ForwardBatch]:
    """Rows of similar lengths in batches of at most `budget` tokens, padding included.

    Tokens of `excluded` ids are not read, nor those whose whole context is that of a row before:
    a shared prompt has the same activations again.
    """
    ordered = sorted(map(tuple, rows))
    repeated = [0, *(_common(a, b) for a, b in pairwise(ordered))]
    fresh = [(row, skip) for row, skip in zip(ordered, repeated, strict=True) if skip < len(row)]
    fresh.sort(key=lambda item: len(item[0]))
    batches = []
    while fresh:
        size = 1
        while size < len(fresh) and (size + 1) * len(fresh[size][0]) <= budget:
            size += 1
        batches.append(_padded(fresh[:size], list(excluded)))
        fresh = fresh[size:]
    return [batch for batch in batches if batch.count]


def _padded(rows: Sequence[tuple[Row, int]], excluded: Sequence[int]) -> ForwardBatch:
    width = max(len(row) for row, _ in rows)
    tokens = np.full((len(rows), width), PAD_ID, np.int32)
    read = np.zeros((len(rows), width), bool)
    for i, (row, skip) in enumerate(rows):
        tokens[i, : len(row)] = row
        read[i, skip : len(row)] = True
    return ForwardBatch(tokens, read & ~np.isin(tokens, excluded))


def _common(a: Row, b: Row) -> int:
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
