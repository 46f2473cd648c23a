"""Plain texts as batches, for perplexity and features."""

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fpo_core.backend.policy import Policy
from fpo_core.data.batches import PAD_ID, Batch, bucket_width
from fpo_core.data.batching import scoring_batches
from fpo_core.errors import DataError
from fpo_core.evaluation.ordinary_text import ORDINARY_TEXTS
from fpo_core.io.foreign_text import check_unicode
from fpo_core.io.regular import parse_json, read_lines
from fpo_core.loss.scores import Scores

_LARGEST = math.log(sys.float_info.max)


def read_texts(path: Path) -> list[str]:
    """Texts of a file: the `text` of each line where it ends in .jsonl, else each non-empty line.

    Raises DataError where the file is absent, empty or has a line without `text`.
    """
    if not path.exists():
        raise DataError(f"there is no text file {path.absolute()}: check the path")
    # A corpus may be large, and is held whole anyway.
    lines = list(read_lines(path, DataError, limit=None))
    if not lines:
        raise DataError(f"{path} is empty, expected one text a line")
    if path.suffix == ".jsonl":
        lines = [(_text(line, where), where) for line, where in lines]
    for text, where in lines:
        check_unicode(text, where)
    return [text for text, _ in lines]


def texts_of(path: str | None) -> list[str]:
    """The texts of a file; without one, ordinary text that no preference is about."""
    return list(ORDINARY_TEXTS) if path is None else read_texts(Path(path))


def _text(line: str, where: str) -> str:
    row = parse_json(line, where, DataError)
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise DataError(f'{where} is not an object like {{"text": "…"}}')
    return text


def perplexity(
    policy: Policy, tokenizer: Any, texts: Sequence[str], tokens_per_batch: int, width: int
) -> float:
    """exp of the mean −log π per token after a text's first; texts are cut at `width` tokens."""
    total = count = 0.0
    for scores in score_texts(policy, tokenizer, texts, tokens_per_batch, width):
        total += float(np.sum(scores.logps))
        count += float(np.sum(scores.lengths))
    mean = -total / count
    return math.inf if mean > _LARGEST else math.exp(mean)


def score_texts(
    policy: Policy, tokenizer: Any, texts: Sequence[str], tokens_per_batch: int, width: int
) -> Iterator[Scores]:
    """Scores of texts in batches, longest first; the first token of a text is not scored.

    Raises DataError where no text has two tokens.
    """
    ids = [tokenizer(text).input_ids[:width] for text in texts]
    ids = [row for row in ids if len(row) > 1]
    if not ids:
        raise DataError("no text has two tokens, expected longer texts")
    lengths = np.array([len(row) for row in ids], np.int64)
    # Batches are planned for pairs, two sequences to a row; a text is one.
    for rows in scoring_batches(lengths, 2 * tokens_per_batch):
        yield policy.score(sequences([ids[row] for row in rows], [1] * len(rows)))


def sequences(ids: Sequence[Sequence[int]], prompt_lengths: Sequence[int]) -> Batch:
    """Sequences that are no pairs as a batch, scored from the end of their prompts on."""
    width = bucket_width(max(len(row) for row in ids))
    tokens = np.full((len(ids), width), PAD_ID, np.int32)
    for place, row in zip(tokens, ids, strict=True):
        place[: len(row)] = row
    return Batch(
        tokens=tokens,
        prompt_lengths=np.asarray(prompt_lengths, np.int32),
        lengths=np.array([len(row) for row in ids], np.int32),
        rows=np.empty(0, np.int64),
    )
