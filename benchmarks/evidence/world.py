"""The quickstart's world as a ground: its grammar judges every sample exactly."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.evidence.ground import Sampled
from fpo.example_inputs import Example, quickstart_world
from fpo.world import score


class WorldGround:
    """See `Ground`."""

    name = "world"
    rates = (1e-3, 3e-3, 1e-2)
    betas: Mapping[str, float] = {
        **dict.fromkeys(("fpo", "dpo-norm", "simpo", "simpo-kl"), 70.0),
        **dict.fromkeys(("dpo", "tdpo2"), 3.5),
    }
    shared: Mapping[str, Any] = {
        "iters": 130,
        "steps_per_eval": 130,
        "save_every": 130,
        "val_pairs": 25,
    }
    sampling: Mapping[str, Any] = {"max_tokens": 48, "temperature": 1.0}
    prompts: Mapping[str, int] = {"tune": 80, "test": 120}
    lengths: Sequence[int] = (33, 65, 130)

    def example(self) -> Example:
        """See `Ground`."""
        return quickstart_world()

    def write(self, folder: Path, part: str) -> list[str]:
        """See `Ground`."""
        source = self.example().pairs
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "train.jsonl").write_bytes((source / "train.jsonl").read_bytes())
        lines = (source / "valid.jsonl").read_text(encoding="utf-8").splitlines()
        few = self.prompts["tune"]
        lines = lines[:few] if part == "tune" else lines[few : few + self.prompts["test"]]
        (folder / "valid.jsonl").write_text(
            "".join(f"{line}\n" for line in lines), encoding="utf-8"
        )
        prompts = (json.loads(line)["prompt"] for line in lines)
        return [prompt if isinstance(prompt, str) else prompt[-1]["content"] for prompt in prompts]

    def judging(self, folder: Path) -> "WorldGround":
        """See `Ground`."""
        del folder
        return self

    def judged(self, answers: Sequence[Sampled]) -> list[dict[str, Any]]:
        """The oracle's score, which is 0 of a reply that is not well formed."""
        return [{"p": score(a.prompt, a.text).preferred, "failed": []} for a in answers]
