"""The example as `fpo` works on examples: files, settings, autoencoder."""

from fetch import HERE, fetch

from fpo.example_inputs import Example
from fpo_core.config.yaml_file import read_yaml

TOKENS, TEMPERATURE = 120, 0.7
"""Most tokens of a sampled completion, and how it is drawn."""


def smollm2_example(cache: str | None) -> Example:
    """SmolLM2 with its pairs of moods, downloaded where the cache lacks them."""
    files = fetch(cache)
    return Example(
        settings=HERE / "settings.yaml",
        model=files.model,
        pairs=files.pairs,
        sae=HERE / "sae",
        tokens=TOKENS,
        temperature=TEMPERATURE,
        grid=tuple(read_yaml(HERE / "compare.yaml")["grid"]),
    )
