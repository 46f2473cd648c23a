"""`report.json`: what a run leaves for its report, which is made again without the model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fpo_core.data.inspect import TokenTexts
from fpo_core.errors import ConfigError, shorten
from fpo_core.evaluation.inspection import Context, InspectedFeature, InspectedSide, Inspection
from fpo_core.io.atomic import write_json
from fpo_core.io.digests import seal_holds, sealed
from fpo_core.io.regular import read_json_object
from fpo_core.sae.taps import Features

RECORD_FILE = "report.json"
FORMAT, VERSION = "fpo-report", 1
PER_NAT = 1000
"""Log-probabilities are stored as whole thousandths of a nat."""
NOT_A_RECORD = (KeyError, TypeError, ValueError, IndexError, AttributeError)
"""What comes of reading values that are none of a record."""
_MOST_BYTES = 2**28
_AROUND = (30, 15)
"""Tokens shown before and behind the one where a feature is strongest."""

Record = dict[str, Any]
"""What a page is made from, as JSON values; texts as they are, not yet made safe."""


def write_record(folder: Path, values: Mapping[str, Any]) -> Record:
    """Write the record of a run into its folder, and return it."""
    record = sealed({"format": FORMAT, "version": VERSION} | dict(values))
    write_json(folder / RECORD_FILE, record)
    return record


def read_record(folder: Path) -> Record | None:
    """The record that a run left; None where it left none.

    Raises ConfigError for a file that is none, of another version, or was changed.
    """
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    record = read_json_object(path, ConfigError, _MOST_BYTES)
    if record.get("format") != FORMAT or record.get("version") != VERSION:
        raise ConfigError(
            f"{path} says format {record.get('format')!r} version {record.get('version')!r}, "
            f"expected {FORMAT!r} version {VERSION}: delete it, and the model is read again"
        )
    if not seal_holds(record):
        raise ConfigError(
            f"{path} is not what was written (SHA-256 differs): delete it, and the model is read "
            "again"
        )
    return record


def damaged(file: Path, error: Exception) -> ConfigError:
    """What to raise for a record, whole by its seal, whose values are none of a record."""
    return ConfigError(
        f"{file} is damaged ({shorten(error, 80)}): delete it, and the model is read again"
    )


class _Vocabulary:
    """Texts of tokens, each stored once."""

    def __init__(self, tokenizer: Any) -> None:
        self._texts = TokenTexts(tokenizer)
        self.numbers: dict[str, int] = {}

    def __call__(self, ids: Sequence[int] | np.ndarray) -> list[int]:
        """The number of each token's text."""
        texts = self._texts([int(i) for i in ids])
        return [self.numbers.setdefault(text, len(self.numbers)) for text in texts]


def inspected(
    inspection: Inspection,
    tokenizer: Any,
    features: Features | None,
    promoted: Mapping[int, Sequence[int]] | None = None,
    sides: Sequence[str] = ("chosen", "rejected"),
) -> Record:
    """Pairs and features of an inspection as JSON values.

    `promoted` are token ids by the place of a feature among those shown.
    """
    vocabulary = _Vocabulary(tokenizer)

    def side(shown: InspectedSide) -> Record:
        return {
            "tokens": vocabulary(shown.ids),
            "before": _thousandths(shown.before),
            "after": _thousandths(shown.after),
        }

    pairs = [
        {
            "row": pair.row,
            "margin": round(float(np.nan_to_num(pair.margin)), 4),
            "prompt": tokenizer.decode(pair.prompt, skip_special_tokens=True),
            "chosen": side(pair.chosen),
            "rejected": side(pair.rejected),
        }
        for pair in sorted(inspection.pairs, key=lambda pair: pair.margin)
    ]
    rows = [pair.row for pair in inspection.pairs]
    lens = promoted or {}
    moved = [
        _feature(feature, vocabulary, rows)
        | {"promotes": [tokenizer.decode([i]) for i in lens.get(n, ())]}
        for n, feature in enumerate(inspection.features)
    ]
    content: Record = {"vocabulary": list(vocabulary.numbers), "pairs": pairs}
    if features is None:
        return content
    saes = [
        {"hook": str(item.hook), "d_sae": item.sae.d_sae, "neuronpedia": item.sae.neuronpedia_id}
        for item in features.hooked
    ]
    d = None if inspection.d is None else list(inspection.d)
    return content | {"saes": saes, "features": moved, "d": d, "sides": list(sides)}


def _feature(feature: InspectedFeature, vocabulary: _Vocabulary, rows: Sequence[int]) -> Record:
    move = feature.move
    values = {
        name: [float(f"{value:.6g}") for value in getattr(move, name)]
        for name in ("before", "after", "fires_before", "fires_after", "d")
    }
    contexts = [_context(context, vocabulary, rows) for context in feature.contexts]
    return {"index": move.index, "sae": move.sae} | values | {"contexts": contexts}


def _context(context: Context, vocabulary: _Vocabulary, rows: Sequence[int]) -> Record:
    """The tokens around the strongest, with activations."""
    peak = int(np.argmax(np.abs(context.activations)))
    start, end = max(0, peak - _AROUND[0]), peak + 1 + _AROUND[1]
    return {
        "row": rows[context.pair] if rows else context.pair + 1,
        "side": context.side,
        "cut": [start > 0, end < len(context.ids)],
        "tokens": vocabulary(context.ids[start:end]),
        "activations": [float(f"{a:.4g}") for a in context.activations[start:end]],
    }


def _thousandths(logps: np.ndarray) -> list[int]:
    # A model that broke has values that are no numbers, which JSON does not know.
    finite = np.nan_to_num(np.asarray(logps, np.float64), nan=0.0, posinf=0.0, neginf=-1e6)
    return np.rint(finite * PER_NAT).astype(np.int64).tolist()
