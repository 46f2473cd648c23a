"""An example: a model with pairs, an autoencoder and settings, for a first run and comparisons."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpo.measure import Judge
from fpo.world import assets, score
from fpo_cli.console.options import read_yaml
from fpo_convert.sae import convert_sae


@dataclass(frozen=True, kw_only=True)
class Example:
    """What a first run works on."""

    settings: Path
    """A YAML file of `fpo train`'s settings."""
    model: Path
    pairs: Path
    text: Path
    """Texts unrelated to the pairs, for perplexity."""
    sae: Path
    """A published checkpoint, to be converted."""
    tokens: int
    """Most tokens of a sampled completion."""
    judge: Judge | None = None

    def training(self, output: Path) -> dict[str, Any]:
        """Settings of `fpo train` on its files, and on what `convert` puts under `output`."""
        places = {
            "model": str(self.model),
            "data": str(self.pairs),
            "text": str(self.text),
            "sae": str(_converted(output)),
            "cache": str(output / "cache"),
        }
        return read_yaml(self.settings) | places

    def convert(self, output: Path) -> None:
        """Convert its autoencoder into `output`."""
        convert_sae(self.sae, _converted(output))


def _converted(output: Path) -> Path:
    return output / "sae.safetensors"


def quickstart_world(settings: Path, tokens: int) -> Example:
    """The world that ships with the package; its oracle judges samples."""
    world = assets()
    return Example(
        settings=settings,
        model=world.model,
        pairs=world.pairs,
        text=world.unrelated,
        sae=world.sae,
        tokens=tokens,
        judge=_judge,
    )


def _judge(prompt: str, completion: str) -> dict[str, float]:
    found = score(prompt, completion)
    return vars(found) | {"preferred": found.preferred}
