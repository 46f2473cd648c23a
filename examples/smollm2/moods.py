"""Preference pairs from moodswapper's answers: the same prompt answered happily and sadly."""

import hashlib
import json
from pathlib import Path
from typing import Any

from fpo_core.errors import DataError

CHOSEN, REJECTED = "happy", "depressed"
CLEARLY = 2.0
"""Least mood on the wheel's scale: 1 is a little, 2 clearly, 3 strongly."""
LONGEST = 400
"""Most characters of an answer, so that whole answers fit in few tokens."""
VALID_SHARE = 5
"""Every so manieth prompt is held out."""

Row = dict[str, Any]


def read_moods(folder: Path) -> dict[str, list[Row]]:
    """The scored answers of each mood; refusals, which are the same in every mood, are left out.

    Raises DataError for a folder without the two moods that are compared.
    """
    files = sorted(folder.glob("*.jsonl"))
    moods = {path.stem: _rows(path) for path in files}
    missing = {CHOSEN, REJECTED} - set(moods)
    if missing:
        raise DataError(f"{folder} lacks {', '.join(sorted(missing))}, expected a file per mood")
    return moods


def _rows(path: Path) -> list[Row]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["kind"] == "mood"]


def held_out(prompt: str) -> bool:
    """Whether a prompt is for validation: by its own text, so no answer to it trains anything."""
    digest = hashlib.sha256(prompt.encode()).digest()
    return int.from_bytes(digest[:8], "big") % VALID_SHARE == 0


def make_pairs(moods: dict[str, list[Row]]) -> list[Row]:
    """Happy over depressed, for each prompt that has both, each short and clearly in its mood."""
    rejected = {row["prompt"]: row["response"] for row in moods[REJECTED] if _usable(row)}
    return [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["response"]}],
            "rejected": [{"role": "assistant", "content": rejected[row["prompt"]]}],
        }
        for row in moods[CHOSEN]
        if _usable(row) and row["prompt"] in rejected
    ]


def _usable(row: Row) -> bool:
    return row["mood"] >= CLEARLY and len(row["response"]) <= LONGEST


def write_pairs(moods: Path, folder: Path) -> None:
    """Write train.jsonl and valid.jsonl, with no prompt in both, from a folder of moods."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = make_pairs(read_moods(moods))
    for name, wanted in (("train", False), ("valid", True)):
        rows = [row for row in pairs if held_out(row["prompt"][0]["content"]) == wanted]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
