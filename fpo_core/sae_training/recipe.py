"""What an autoencoder's training consists of, and the defaults by width and by tokens at hand."""

import math
from dataclasses import dataclass

from fpo_core.config import SaeTrainConfig
from fpo_core.errors import ConfigError

_SIZES = (
    (640, 4_096, 32, 2_000_000),
    (1_152, 8_192, 48, 5_000_000),
    (2_560, 16_384, 64, 10_000_000),
)
"""Largest d_in of a row, then d_sae, k and tokens; the last row is for wider models."""
_WIDEST = (32_768, 100, 20_000_000)
_RATE, _RATE_WIDTH = 0.128, 4_096
"""Peak learning rate times √d_in, so relative to an entry of a unit row: the best of seven on a
planted dictionary (d_in 64). Beyond d_sae 4096 it falls with √d_sae, as in dictionary_learning."""
_LONG, _FASTEST = 1_000, 2.0
"""Steps below which the rate rises with their cube root, and how far: a run of SmolLM2's
activations with 125 steps explains more at twice the rate, the dictionary's with 2,000 less."""
_WARMUP, _DECAY = 0.05, 0.5
"""Shares of the steps in which the rate rises, and falls to 0."""
_MOST_WARMUP = 1_000
_SILENT = 1_000
"""A feature is dead once the mean one would have fired so often, or after a tenth of the run."""
TOKENS_PER_FEATURE = 30
"""Distinct tokens per feature below which fewer features are trained by default."""
_NARROWEST = 256
_PASSES = 20
"""Most times that the default for tokens sees each of the tokens at hand."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides how one autoencoder is trained, besides its activations."""

    d_in: int
    d_sae: int
    k: int
    tokens: int
    batch_tokens: int
    learning_rate: float
    architecture: str
    prefixes: tuple[int, ...]
    """Widths whose features reconstruct by themselves, ascending, d_sae last (Matryoshka)."""
    seed: int

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return max(1, self.tokens // self.batch_tokens)

    @property
    def dead_after(self) -> int:
        """Tokens without firing after which a feature is dead."""
        return min(_SILENT * self.d_sae // self.k, self.tokens // 10)

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 1: linear warm-up, constant, linear to 0."""
        warmup = min(_MOST_WARMUP, max(1, round(_WARMUP * self.steps)))
        decay = max(1, round(_DECAY * self.steps))
        left = (self.steps - step + 1) / decay
        return self.learning_rate * min(1.0, step / warmup, left)


def recipe_of(config: SaeTrainConfig, d_in: int, distinct: int) -> Recipe:
    """The recipe that settings, the width of the activations and the distinct tokens come to.

    Raises ConfigError where k, d_sae and the nested widths contradict each other.
    """
    d_sae, k, tokens = next((row[1:] for row in _SIZES if d_in <= row[0]), _WIDEST)
    d_sae = min(d_sae, max(_NARROWEST, _power_of_two(distinct // TOKENS_PER_FEATURE)))
    d_sae = config.d_sae or d_sae
    k = config.k or min(k, d_sae)
    if k > d_sae:
        raise ConfigError(f"k is {k} and d_sae {d_sae}, expected at most d_sae: lower k")
    tokens = config.tokens or min(tokens, _PASSES * distinct)
    batch = min(config.batch_tokens, tokens, distinct)
    rate = _RATE * math.sqrt(_RATE_WIDTH / (d_in * max(d_sae, _RATE_WIDTH)))
    rate *= min(_FASTEST, max(1.0, _LONG * batch / tokens) ** (1 / 3))
    return Recipe(
        d_in=d_in,
        d_sae=d_sae,
        k=k,
        tokens=tokens,
        batch_tokens=batch,
        learning_rate=config.learning_rate or rate,
        architecture=config.architecture,
        prefixes=_prefixes(d_sae, config.matryoshka),
        seed=config.seed,
    )


def _power_of_two(number: int) -> int:
    return 1 << max(0, number.bit_length() - 1)


def _prefixes(d_sae: int, count: int) -> tuple[int, ...]:
    """`count` nested widths, equally far apart in the logarithm from d_sae / 256 (or 16) on."""
    if count == 1:
        return (d_sae,)
    first = max(16, d_sae // 256)
    if count > 1 + d_sae // (2 * first):
        raise ConfigError(
            f"matryoshka is {count} and d_sae {d_sae}, which has no so many widths from {first} "
            "on: lower matryoshka"
        )
    ratio = (d_sae / first) ** (1 / (count - 1))
    return (*(round(first * ratio**i) for i in range(count - 1)), d_sae)
