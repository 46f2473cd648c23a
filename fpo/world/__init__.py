"""The quickstart world: a tiny model, its autoencoder, its preference pairs and an exact judge.

Everything ships inside the package, so a first run needs no network. Importing this package loads
the standard library alone.

- `assets()` gives the paths of the shipped files.
- `score(prompt, completion)` judges a reply; `.preferred` is what the shipped pairs prefer.
- `make_prompt` and `make_reply` write by the world's grammar. examples/world has what builds the
  shipped files from them, and pairs for any of `ATTRIBUTES`.
"""

from dataclasses import dataclass
from pathlib import Path

from fpo.world.grammar import ATTRIBUTES, Traits, make_prompt, make_reply, random_traits
from fpo.world.oracle import OracleScore, score

__all__ = [
    "ATTRIBUTES",
    "Assets",
    "OracleScore",
    "Traits",
    "assets",
    "make_prompt",
    "make_reply",
    "random_traits",
    "score",
    "world_path",
]


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
