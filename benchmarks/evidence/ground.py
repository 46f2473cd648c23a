"""What the experiment runs on: a model with pairs in two held-out parts, and a judge of samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fpo.example_inputs import Example

PARTS = ("tune", "test")
"""Held-out prompts that settings are chosen on, and others that results are from."""


@dataclass(frozen=True)
class Sampled:
    """A completion of a prompt."""

    prompt: str
    text: str
    cut: bool = False
    """Whether it reached the most tokens of a sample, so that its end is not the model's."""


class Judging(Protocol):
    """Judges samples."""

    def judged(self, answers: Sequence[Sampled]) -> list[dict[str, Any]]:
        """Of each its preference `p` in [0, 1], and the checks that it `failed`."""
        ...


class Ground(Protocol):
    """A model and pairs to compare arms on."""

    name: str
    rates: Sequence[float]
    """Learning rates that every arm is tuned over."""
    betas: Mapping[str, float]
    """β of each objective, where tuning begins: the library's or the example's."""
    shared: Mapping[str, Any]
    """Settings of all runs, over the example's."""
    sampling: Mapping[str, Any]
    """Settings of `compare` for the samples of both parts."""
    prompts: Mapping[str, int]
    """Held-out pairs of each part, one a prompt."""
    lengths: Sequence[int]
    """Steps of the frontier's runs."""

    def example(self) -> Example:
        """Model, autoencoder and settings."""
        ...

    def write(self, folder: Path, part: str) -> list[str]:
        """train.jsonl and the part as valid.jsonl in `folder`; the prompts of the part."""
        ...

    def judging(self, folder: Path) -> Judging:
        """The judge; what takes long to find is kept in `folder`."""
        ...
