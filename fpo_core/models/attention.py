"""Windows and rotary frequencies of a model's blocks, as transformers reads its config.json.

transformers' configuration classes resolve what folders spell in many ways: settings at the top
level or inside `rope_parameters`, layer types written out or implied by the family. They need
neither torch nor weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpo_core.errors import ModelError
from fpo_core.models.folder import ModelFolder, cannot_load
from fpo_core.models.rotary import Rotary, rotary_of

_LEARNED = ("gpt2", "gpt_bigcode", "gpt_neo", "opt", "codegen")
"""Families with a table of learned position embeddings."""


@dataclass(frozen=True)
class Attention:
    """What each block's attention sees, and how it rotates queries and keys."""

    windows: tuple[int | None, ...]
    """By block, the number of tokens up to its own that a token sees; None is all."""
    rotary: tuple[Rotary | None, ...]
    """By block; None where the family rotates nothing, or in a way of its own."""
    limit: "LengthLimit | None" = None


@dataclass(frozen=True)
class LengthLimit:
    """The longest sequence that has a value of its own in this model."""

    tokens: int
    reason: str

    def error(self, what: str, length: int) -> ModelError:
        """The error for `what`, a sequence of `length` tokens."""
        return ModelError(
            f"{what} has {length} tokens, but {self.reason}: set max_seq_length to at most "
            f"{self.tokens}"
        )


def attention_of(folder: Path, *, trust_remote_code: bool = False) -> Attention | None:
    """The attention of a folder's model; None for a family that transformers does not know.

    Raises ModelError for rotary frequencies that are scaled in a way that is not known here.
    """
    config = text_config(folder, trust_remote_code)
    if config is None:
        return None
    return Attention(tuple(_windows(config)), tuple(_rotaries(config)), length_limit(config))


def text_config(folder: Path, trust_remote_code: bool) -> Any | None:
    """transformers' configuration of a folder's language model; None for an unknown family.

    Raises ModelError where the configuration of a known one is damaged.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    try:
        config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # whatever the classes of a family make of a damaged file
        if ModelFolder(folder, "").config.get("model_type") in CONFIG_MAPPING:
            raise cannot_load("transformers", folder, error) from None
        return None
    return config.get_text_config()


def length_limit(config: Any) -> LengthLimit | None:
    """The limit of a model by transformers' configuration of its language model."""
    if config.model_type in _LEARNED:
        count = config.max_position_embeddings
        return LengthLimit(count, f"the model has position embeddings for {count}")
    for rope in _ropes(config):
        kind = rope.get("rope_type", "default")
        # Past these lengths transformers takes other frequencies, for every sequence of a batch:
        # log-probabilities would depend on which pairs happen to share one.
        if kind == "longrope":
            count = rope["original_max_position_embeddings"]
        elif kind == "dynamic":
            count = config.max_position_embeddings
        else:
            continue
        reason = f"beyond {count} its rope_type {kind!r} takes frequencies that depend on the batch"
        return LengthLimit(count, reason)
    return None


def _layer_types(config: Any) -> list[str]:
    types = getattr(config, "layer_types", None)
    # Families without the list have the same attention in every block.
    return types or ["sliding_attention"] * config.num_hidden_layers


def _windows(config: Any) -> Iterator[int | None]:
    window = getattr(config, "sliding_window", None)
    for kind in _layer_types(config):
        yield window if kind == "sliding_attention" else None


def _ropes(config: Any) -> list[dict[str, Any]]:
    """The rope parameters of every kind of block."""
    rope = getattr(config, "rope_parameters", None) or {}
    nested = [rope[kind] for kind in dict.fromkeys(_layer_types(config)) if rope.get(kind)]
    return nested or [rope]


def _rotaries(config: Any) -> Iterator[Rotary | None]:
    rope = getattr(config, "rope_parameters", None) or {}
    for kind in _layer_types(config):
        yield rotary_of(rope.get(kind, rope), config)
