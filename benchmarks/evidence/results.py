"""Results of finished runs, and comparisons over several of them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evidence.drift import Checkpoint, read
from benchmarks.evidence.measures import NAMES
from benchmarks.evidence.plans import ABLATION, BLOCKS, CONTROL, OBJECTIVES
from benchmarks.evidence.ranks import interval, spearman
from fpo.comparison.runs import RESULT_FILE
from fpo_core.io.atomic import write_json
from fpo_core.loss.scores import rejected

FILE = "evidence.json"
MATCH = 0.0101
"""Raw accuracies that differ by at most one point are matched, floating point allowed for."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path

    @cached_property
    def result(self) -> dict[str, Any]:
        """Its result file, as `fpo compare` wrote it."""
        return json.loads((self.folder / RESULT_FILE).read_text(encoding="utf-8"))

    @cached_property
    def checkpoints(self) -> list[Checkpoint]:
        """Its checkpoints."""
        return read(self.folder)

    def nearest(self, accuracy: float) -> Checkpoint | None:
        """The first checkpoint at this raw accuracy, up to one point; None where there is none."""
        matched = (s for s in self.checkpoints if abs(s.raw_accuracy - accuracy) <= MATCH)
        return next(matched, None)

    @property
    def best(self) -> float:
        """The highest raw accuracy of its checkpoints."""
        return max(s.raw_accuracy for s in self.checkpoints)


@dataclass(frozen=True)
class Evidence:
    """All runs on one model."""

    groups: dict[str, list[Run]]
    alpha: float | None
    """FPO's, in the runs of `objectives`."""
    start: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Evidence":
        """Read what `write` wrote."""
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        groups = {
            group: [Run(folder / name) for name in names]
            for group, names in content["groups"].items()
        }
        return cls(groups, content["alpha"], content["start"])

    def write(self, folder: Path) -> None:
        """Write which of a folder's runs belong to which group."""
        groups = {
            group: [str(run.folder.relative_to(folder)) for run in runs]
            for group, runs in self.groups.items()
        }
        write_json(folder / FILE, {"groups": groups, "alpha": self.alpha, "start": self.start})

    @property
    def objectives(self) -> list[Run]:
        """Every objective, with every seed."""
        return self.groups[OBJECTIVES]

    @property
    def ablations(self) -> list[Run]:
        """FPO with one setting changed."""
        return self.groups[ABLATION]

    @property
    def control(self) -> list[Run]:
        """FPO on the features of one attribute."""
        return self.groups[CONTROL]

    @property
    def blocks(self) -> list[Run]:
        """FPO with autoencoders of one block or of several."""
        return self.groups[BLOCKS]

    def of(self, objective: str) -> list[Run]:
        """The runs of an objective, a seed each."""
        return [run for run in self.objectives if run.result["objective"] == objective]


@dataclass(frozen=True)
class Matched:
    """FPO and another objective at the same raw accuracy, one seed."""

    seed: int
    accuracy: tuple[float, float]
    steps: tuple[int, int]
    kl: tuple[float, float]
    d: tuple[float, float]


def matched(evidence: Evidence, other: str) -> list[Matched]:
    """FPO's and another's first checkpoints at the highest raw accuracy that both reach."""
    pairs: list[Matched] = []
    for fpo in evidence.of("fpo"):
        for run in evidence.of(other):
            if run.result["seed"] == fpo.result["seed"]:
                target = min(fpo.best, run.best)
                sides = fpo.nearest(target), run.nearest(target)
                if sides[0] is not None and sides[1] is not None:
                    pairs.append(_matched(fpo.result["seed"], sides[0], sides[1]))
    return pairs


def _matched(seed: int, fpo: Checkpoint, other: Checkpoint) -> Matched:
    def both(read: Callable[[Checkpoint], float]) -> tuple[float, float]:
        return read(fpo), read(other)

    return Matched(
        seed,
        both(lambda s: s.raw_accuracy),
        (fpo.step, other.step),
        both(lambda s: float(rejected(s.kl).mean())),
        both(lambda s: float(rejected(s.d["sae"]).mean())),
    )


@dataclass(frozen=True)
class Correlation:
    """Spearman's ρ of D and sequential KL, with its 95% interval."""

    rho: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, d: np.ndarray, kl: np.ndarray) -> "Correlation":
        """Of (n,) values of either."""
        return cls(spearman(d, kl), *interval(spearman, d, kl), len(d))

    def __str__(self) -> str:
        return f"{self.rho:.2f} [{self.low:.2f}, {self.high:.2f}] (n = {self.count})"


def across_examples(run: Run) -> dict[str, Correlation]:
    """Over the completions of held-out pairs, at a run's last checkpoint, by measure of D."""
    last = run.checkpoints[-1]
    return {name: Correlation.of(last.d[name], last.kl) for name in NAMES}


def across_runs(runs: list[Run]) -> tuple[float, dict[str, Correlation]]:
    """Over runs at one raw accuracy, on the rejected side: the accuracy, and ρ by measure of D.

    The accuracy is the highest that nine runs of ten reach.
    """
    target = float(np.quantile([run.best for run in runs], 0.1, method="lower"))
    nearest = [s for run in runs if (s := run.nearest(target)) is not None]
    kl = np.array([rejected(s.kl).mean() for s in nearest])
    by_name = {name: np.array([rejected(s.d[name]).mean() for s in nearest]) for name in NAMES}
    return target, {name: Correlation.of(d, kl) for name, d in by_name.items()}
