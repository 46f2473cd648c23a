"""The experiment's pairs: a happy answer over one in another mood, split three ways by prompt.

Moodswapper's answers (MIT) as examples/smollm2 fetches them: prompts answered in up to nine
moods. An answer is used where it is short and clearly in its mood. The hash of a prompt decides
whether it trains, tunes or tests, so no answer to a prompt is in two parts.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpo_core.train.paired_data import spread

CHOSEN = "happy"
CLEARLY, LONGEST = 2.0, 400
"""Least mood on the wheel's scale of 3, and most characters of an answer."""
PER_PROMPT = 2
"""Most pairs that a prompt trains."""
PARTS = {"train": 50, "tune": 20, "test": 30}
"""Shares of the prompts in percent."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Moods:
    """Every answer, with its mood."""

    rows: Sequence[Row]
    """As the wheel has them, and `of`: the mood asked for."""

    @classmethod
    def of_each(cls, moods: Mapping[str, Sequence[Row]]) -> "Moods":
        """The answers of each mood, as the example reads them."""
        return cls([row | {"of": mood} for mood, rows in moods.items() for row in rows])

    def of(self, part: str) -> list[Row]:
        """The answers to a part's prompts."""
        return [row for row in self.rows if part_of(row["prompt"]) == part]

    def pairs(self, part: str) -> list[Row]:
        """Happy over another mood: of training `PER_PROMPT` a prompt, of the others one each."""
        usable = [
            r for r in self.of(part) if r["mood"] >= CLEARLY and len(r["response"]) <= LONGEST
        ]
        happy = {row["prompt"]: row["response"] for row in usable if row["of"] == CHOSEN}
        others: dict[str, list[Row]] = {}
        for row in sorted(usable, key=lambda row: _number(row["prompt"] + row["of"])):
            if row["of"] != CHOSEN and row["prompt"] in happy:
                others.setdefault(row["prompt"], []).append(row)
        most = PER_PROMPT if part == "train" else 1
        return [
            _pair(prompt, happy[prompt], row["response"])
            for prompt, rows in sorted(others.items(), key=lambda item: _number(item[0]))
            for row in rows[:most]
        ]

    def write(self, folder: Path, part: str, count: int) -> list[str]:
        """train.jsonl, and as valid.jsonl `count` pairs of a part; the prompts of these."""
        folder.mkdir(parents=True, exist_ok=True)
        held_out = self.pairs(part)
        held_out = [held_out[int(i)] for i in spread(len(held_out), count)]
        for name, pairs in (("train", self.pairs("train")), ("valid", held_out)):
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in pairs)
            (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        return [row["prompt"][0]["content"] for row in held_out]


def part_of(prompt: str) -> str:
    """The part that a prompt belongs to."""
    place = _number(prompt) % 100
    for part, share in PARTS.items():
        if place < share:
            return part
        place -= share
    raise AssertionError("the shares are 100")


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _pair(prompt: str, chosen: str, rejected: str) -> Row:
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }
