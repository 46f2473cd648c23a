"""What an example consists of: a model with pairs, an autoencoder and settings for its runs."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpo.measurements import Oracle
from fpo.quickstart_settings import QUICKSTART_SETTINGS
from fpo.world import assets, score
from fpo_convert.sae import convert_sae
from fpo_core.config.yaml_file import read_yaml

WORLD_GRID = Path(__file__).parent / "comparison" / "world.yaml"
QUICKSTART_TOKENS = 48
"""Most tokens of a sampled completion: the world's longest reply fits."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """What a first run works on."""

    settings: Path
    """A YAML file of the settings of `train`."""
    model: Path
    pairs: Path
    text: Path | None = None
    """Texts unrelated to the pairs, for perplexity; None for the ordinary English of `train`."""
    sae: Path
    """A published checkpoint, to be converted."""
    tokens: int
    """Most tokens of a sampled completion."""
    temperature: float = 1.0
    """At which completions are sampled."""
    judge: Oracle | None = None
    grid: tuple[str, ...] = ()
    """What comparisons on it vary, under what their own settings say."""

    def training(self, output: Path) -> dict[str, Any]:
        """Settings of `train` on its files, and on what `convert` puts under `output`."""
        places = {
            "model": str(self.model),
            "data": str(self.pairs),
            "sae": str(_converted(output)),
            "cache": str(output / "cache"),
        }
        text = {} if self.text is None else {"text": str(self.text)}
        return read_yaml(self.settings) | places | text

    def convert(self, output: Path) -> None:
        """Convert its autoencoder into `output`."""
        convert_sae(self.sae, _converted(output))


def _converted(output: Path) -> Path:
    return output / "sae.safetensors"


def quickstart_world() -> Example:
    """The world that ships with the package; its oracle judges samples."""
    # Threads of a BLAS wait for each other by spinning, which on products this small costs more
    # than it brings: on two busy cores, one thread took 50 s and two 210 s. Read at the import of
    # a framework, so this has no effect in a process that already uses one.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    world = assets()
    return Example(
        settings=QUICKSTART_SETTINGS,
        model=world.model,
        pairs=world.pairs,
        text=world.unrelated,
        sae=world.sae,
        tokens=QUICKSTART_TOKENS,
        judge=_judge,
        grid=tuple(read_yaml(WORLD_GRID)["grid"]),
    )


def _judge(prompt: str, completion: str) -> dict[str, float]:
    scores = score(prompt, completion)
    return vars(scores) | {"preferred": scores.preferred}
