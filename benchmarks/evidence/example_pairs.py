"""The pairs of examples/smollm2 as a ground: happy answers over sad ones, for the default alone."""

import importlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from benchmarks.evidence.moods import Moods
from benchmarks.evidence.smollm2 import Smollm2Ground


class ExampleGround(Smollm2Ground):
    """See `Ground`. The example's own split, in two: nothing is tuned on it here."""

    name = "example"
    prompts: Mapping[str, int] = {"test": 52}

    @cached_property
    def moods(self) -> Moods:
        """The wheel's answers to prompts that the example trains: what judges are fitted on."""
        rows = super().moods.rows
        held_out = importlib.import_module("moods").held_out
        return Moods([row for row in rows if not held_out(row["prompt"])])

    def write(self, folder: Path, part: str) -> list[str]:
        """See `Ground`."""
        assert part == "test"
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("train.jsonl", "valid.jsonl"):
            (folder / name).write_bytes((self.example().pairs / name).read_bytes())
        lines = (folder / "valid.jsonl").read_text(encoding="utf-8").splitlines()
        prompts = [json.loads(line)["prompt"][0]["content"] for line in lines]
        assert len(prompts) == self.prompts[part]
        return prompts
