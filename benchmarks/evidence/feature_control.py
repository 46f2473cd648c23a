"""Table E: D on the features of one style of text, or on as many at random."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fpo
from benchmarks.evidence.rows import Row
from fpo.comparison.layout import RESULT_FILE, START_FILE
from fpo_core.evaluation.feature_ranking import Contrast
from fpo_core.sae.feature_weights import write_weights
from fpo_core.sae.sae import load_sae

STYLES = {
    "exclamation": "!",
    "question": r"\?",
    "list": r"^\s*(\d+\.|[-*•])\s",
    "first person": r"\b(I|me|my)\b",
    "emoji": "[\U0001f300-\U0001faff\u2600-\u27bf]",
}
"""Styles of a reply, by an expression that is found in it."""
TARGET = "exclamation"
FEATURES, TEXTS = 20, 100
"""Features of D, and texts with the target and without from which they are ranked."""


def styles(text: str) -> list[str]:
    """The styles of a reply."""
    return [name for name, found in STYLES.items() if re.search(found, text, re.MULTILINE)]


def with_styles(path: Path) -> Row:
    """The row of a run or of the start, with the styles of its samples where their texts are."""
    row = json.loads(path.read_text(encoding="utf-8"))
    texts = path.with_name(RESULT_FILE)
    if row["arm"] == "start":
        texts = start_folder(path.parent, row["seed"]) / START_FILE
    if texts.exists():
        completions = json.loads(texts.read_text(encoding="utf-8"))["metrics"]["completions"]
        for sample, text in zip(row["samples"], completions, strict=True):
            if found := styles(text):
                sample["styles"] = found
    return row


def start_folder(folder: Path, seed: int) -> Path:
    """Where the start's samples of a seed lie, in the folder of a stage."""
    return folder / f"start{seed}" if seed else folder


def has(rows: Sequence[Row], style: str) -> np.ndarray:
    """Whether each sample of an arm's runs has a style, (seeds, prompts)."""
    return np.array([[float(style in s.get("styles", ())) for s in r["samples"]] for r in rows])


def weights_file(name: str, base: dict[str, Any], folder: Path) -> Path:
    """Weights of the target's features, or of as many others at random, made in `folder` once."""
    path = folder / f"features-{name}.json"
    if not path.exists():
        ranked = _ranked(base, folder)
        target = [f.index for f in ranked if f.difference > 0][:FEATURES]
        others = sorted({f.index for f in ranked} - set(target))
        drawn = np.random.default_rng(17).choice(others, FEATURES, replace=False)
        weights = dict.fromkeys(target if name == TARGET else map(int, drawn), 1.0)
        write_weights(path, load_sae(Path(base["sae"])), weights)
    return path


def _ranked(base: dict[str, Any], folder: Path) -> Sequence[Contrast]:
    """All features that differ between chosen replies with the target and without, largest first.

    Both are of the preferred kind, so that what differs is not the preference.
    """
    lines = (Path(base["data"]) / "train.jsonl").read_text(encoding="utf-8").splitlines()
    chosen = list(dict.fromkeys(json.loads(line)["chosen"][-1]["content"] for line in lines))
    files = {}
    for kind in (True, False):
        texts = [text for text in chosen if (TARGET in styles(text)) is kind][:TEXTS]
        files[kind] = folder / f"texts-{TARGET}-{kind}.jsonl"
        files[kind].write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), "utf-8")
    ranking = fpo.rank_features(
        model=base["model"],
        sae=base["sae"],
        positive=files[True],
        negative=files[False],
        top=load_sae(Path(base["sae"])).d_sae,
        absolute=True,
        backend="torch",
        device="cpu",
    )
    return ranking.features
