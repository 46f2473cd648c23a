"""The quickstart world: a tiny model, its autoencoder, its preference pairs and an exact judge.

Everything ships inside the package, so a first run needs no network. Importing this package loads
the standard library alone.

- `assets()` gives the paths of the shipped files.
- `score(prompt, completion)` judges a reply; `.preferred` is what the shipped pairs prefer.
- `make_pairs(attribute, n, seed)` makes pairs for any of `ATTRIBUTES`; `make_splits` makes a
  training and a validation split with no prompt in common; `dump_jsonl` writes them.
"""

from dataclasses import dataclass
from pathlib import Path

from fpo.world.grammar import ATTRIBUTES, Traits, make_prompt, make_reply, random_traits
from fpo.world.oracle import OracleScore, score
from fpo.world.pairs import dump_jsonl, make_pairs, make_splits, make_unrelated_rows

__all__ = [
    "ATTRIBUTES",
    "PAIRS_ATTRIBUTE",
    "PAIRS_SEED",
    "UNRELATED_SEED",
    "Assets",
    "OracleScore",
    "Traits",
    "assets",
    "dump_jsonl",
    "make_pairs",
    "make_prompt",
    "make_reply",
    "make_splits",
    "make_unrelated_rows",
    "random_traits",
    "score",
    "world_path",
]

# The shipped pairs are make_splits(PAIRS_ATTRIBUTE, PAIRS_SEED) at the shipped model's likelihood.
PAIRS_ATTRIBUTE = "politeness"
PAIRS_SEED = 20
UNRELATED_SEED = 40


@dataclass(frozen=True)
class Assets:
    """Where the shipped files are."""

    model: Path  # a folder for transformers or mlx-lm, the tokenizer included
    sae: Path  # a folder in SAELens's format, for the output of the model's third block
    pairs: Path  # a folder with train.jsonl and valid.jsonl
    train: Path
    valid: Path
    unrelated: Path  # JSONL rows {"text": ...}, not in the model's training data


def world_path() -> Path:
    """The folder that holds the world's data."""
    return Path(__file__).resolve().parent / "data"


def assets(root: Path | None = None) -> Assets:
    """The paths of the world's files, under `root` or where the package keeps them."""
    root = root or world_path()
    pairs = root / "pairs"
    return Assets(
        model=root / "model",
        sae=root / "sae",
        pairs=pairs,
        train=pairs / "train.jsonl",
        valid=pairs / "valid.jsonl",
        unrelated=root / "unrelated.jsonl",
    )
