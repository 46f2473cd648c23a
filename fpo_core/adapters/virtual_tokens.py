"""Virtual tokens without a framework: a soft prompt, or a prefix of keys and values in every block.

Every sequence begins with n tokens of ids from `VIRTUAL_ID` on, so positions, masks and packed rows
treat them like any prompt. A soft prompt (Lester et al., arXiv 2104.08691) gives their embeddings,
`prompt.embeddings` (n, d); a prefix (P-tuning v2, arXiv 2110.07602) the keys and values that they
have in each block, behind the rotary positions: `<block>.prefix.keys` and `.values`, (n, g · head).

The reference is the model without them. Arrays of no rows say that: weights of 0 virtual tokens.
"""

import dataclasses
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fpo_core.config import AdapterConfig
from fpo_core.data.batches import Batch
from fpo_core.errors import ModelError
from fpo_core.models.folder import ModelFolder

PROMPT = "prompt.embeddings"
SIDES = ("keys", "values")
VIRTUAL_ID = 2**30
"""The id of the first virtual token, beyond any vocabulary."""
_SPREAD = 0.02
"""Standard deviation of a prefix at its start, which hardly changes what blocks compute."""
Shapes = dict[str, tuple[int, ...]]
Weights = dict[str, np.ndarray]


@dataclass(frozen=True)
class VirtualTokens:
    """A soft prompt or a prefix by canonical name, float32."""

    weights: Weights
    heads: int
    """Heads of keys and values, which the columns of a prefix consist of."""

    @property
    def fine_tune_type(self) -> Literal["prompt", "prefix"]:
        """What they are."""
        return "prompt" if PROMPT in self.weights else "prefix"

    @property
    def count(self) -> int:
        """The number of virtual tokens."""
        return len(next(iter(self.weights.values())))

    @property
    def left_out(self) -> int:
        """See `fpo_core.adapters.lora.Adapter`: none."""
        return 0

    def shape(self) -> AdapterConfig:
        """The settings of a policy that holds them."""
        return AdapterConfig(fine_tune_type=self.fine_tune_type, virtual_tokens=self.count)


def is_virtual(name: str) -> bool:
    """Whether a canonical name is of virtual tokens."""
    return name == PROMPT or ".prefix." in name


def prefix_name(block: int, side: str) -> str:
    """The canonical name of a block's keys or values."""
    return f"{block}.prefix.{side}"


def virtual_shapes(config: AdapterConfig, model: ModelFolder) -> Shapes:
    """Shapes by canonical name; ModelError where config.json does not say the widths."""
    hidden = model.width
    if hidden is None:
        raise _silent(model, "hidden_size")
    if config.fine_tune_type == "prompt":
        return {PROMPT: (config.virtual_tokens, hidden)}
    width = hidden // _size(model, "num_attention_heads", "n_head")
    width = (model.config.get("head_dim") or width) * key_heads(model)
    names = (prefix_name(block, side) for block in range(model.layers) for side in SIDES)
    return {name: (config.virtual_tokens, width) for name in names}


def key_heads(model: ModelFolder) -> int:
    """The heads of keys and values."""
    return model.config.get("num_key_value_heads") or _size(model, "num_attention_heads", "n_head")


def _size(model: ModelFolder, *names: str) -> int:
    for name in names:
        if isinstance(model.config.get(name), int):
            return model.config[name]
    raise _silent(model, names[0])


def _silent(model: ModelFolder, name: str) -> ModelError:
    return ModelError(
        f"{model.path / 'config.json'} does not say {name}, which prompt and prefix tuning "
        "need: train lora"
    )


def initial_virtual(
    shapes: Mapping[str, tuple[int, ...]], seed: int, embeddings: np.ndarray
) -> Weights:
    """Initial weights: a prompt of tokens drawn from the vocabulary, as `embeddings` (v, d) of the
    first v has them, or a prefix close to 0.

    The same on every framework; seeded by name.
    """

    def start(name: str, shape: tuple[int, ...]) -> np.ndarray:
        generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if name == PROMPT:
            return embeddings[generator.integers(len(embeddings), size=shape[0])]
        return generator.normal(0, _SPREAD, shape).astype(np.float32)

    return {name: start(name, shape) for name, shape in shapes.items()}


def without_virtual_tokens(weights: Weights) -> Weights:
    """The weights under which a policy is its reference: no virtual tokens; others as they are."""
    return {name: w[:0] if is_virtual(name) else w for name, w in weights.items()}


def virtual_ids(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> np.ndarray:
    """The ids in front of every sequence, (n,): those of weights by name and canonical shape."""
    counts = {shape[0] for name, shape in shapes if is_virtual(name)}
    if len(counts) > 1:
        raise ModelError(f"the blocks have {sorted(counts)} virtual tokens, expected as many each")
    return VIRTUAL_ID + np.arange(counts.pop() if counts else 0)


def prepended(batch: Batch, ids: np.ndarray) -> Batch:
    """A batch whose sequences begin with these ids (n,), as part of their prompts."""
    if not len(ids):
        return batch
    rows = np.broadcast_to(ids, (len(batch.tokens), len(ids)))
    return dataclasses.replace(
        batch,
        tokens=np.concatenate([rows, batch.tokens], 1).astype(np.int32),
        prompt_lengths=batch.prompt_lengths + len(ids),
        lengths=batch.lengths + len(ids),
        degraded=None,
    )


def unfit(block: int, keys: tuple[int, ...], heads: int, width: int) -> ModelError:
    """The error for a block whose keys (b, g, t, head) are not those of the configuration."""
    return ModelError(
        f"fine_tune_type is prefix, but block {block} attends with keys of shape {keys}, expected "
        f"{heads} heads of {width}: train prompt or lora on this family"
    )
