"""The bounds of a model's tables: token ids of its embeddings, positions of its sequences.

MLX reads memory past the end of an array where an index is too large, and torch ends in a traceback
or a device-side assertion. So every index is compared with its table in NumPy before a pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fpo_core.config import ModelConfig
from fpo_core.data.batches import Batch
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.errors import DataError, ModelError
from fpo_core.models.attention import LengthLimit, length_limit, text_config
from fpo_core.models.folder import ModelFolder


@dataclass(frozen=True)
class Bounds:
    """What a model's tables hold; None where its configuration does not say."""

    vocabulary: int | None = None
    """Rows of the embedding table."""
    limit: LengthLimit | None = None

    @classmethod
    def of(cls, model: ModelFolder, config: ModelConfig) -> "Bounds":
        """The bounds of a model on disk, by its configuration alone."""
        settings = text_config(model.path, config.trust_remote_code)
        size = getattr(settings, "vocab_size", None) or model.config.get("vocab_size")
        return cls(size, None if settings is None else length_limit(settings))

    def less(self, tokens: int) -> "Bounds":
        """The bounds of what follows so many tokens of the model's own positions."""
        if self.limit is None or not tokens:
            return self
        reason = f"{self.limit.reason} and {tokens} of them are virtual"
        return replace(self, limit=LengthLimit(self.limit.tokens - tokens, reason))

    def check_pairs(self, pairs: TokenisedPairs, tokenizer: Any = None) -> None:
        """Raise DataError naming the first row with a token that the model has no embedding for,
        ModelError for the longest pair where it is beyond the limit.
        """
        if self.vocabulary is not None:
            found = pairs.token_outside(self.vocabulary)
            if found is not None:
                row, token = found
                raise self._unknown(f"row {row}", token, tokenizer)
        lengths = pairs.lengths()
        if self.limit is not None and len(lengths) and lengths.max() > self.limit.tokens:
            longest = int(lengths.argmax())
            row = pairs.source_rows()[longest]
            raise self.limit.error(f"row {row}", int(lengths[longest]))

    def check_tokens(self, tokens: np.ndarray, *, what: str = "the text") -> None:
        """The same for an array of ids, (…, t)."""
        if self.vocabulary is not None and tokens.size:
            for token in (int(tokens.max()), int(tokens.min())):
                if not 0 <= token < self.vocabulary:
                    raise self._unknown(what, token)
        if self.limit is not None and tokens.shape[-1] > self.limit.tokens:
            raise self.limit.error(what, tokens.shape[-1])

    def check_batch(self, batch: Batch) -> Batch:
        """The same for a batch; returns it, without columns of padding where the limit needs it."""
        if self.limit is not None and batch.width > self.limit.tokens:
            batch = batch.trimmed()
        self.check_tokens(batch.tokens, what=f"the batch of pairs {_few(batch.rows)}")
        return batch

    def rooms(self, prompts: Sequence[np.ndarray], max_tokens: int) -> list[int]:
        """Tokens that each prompt can be continued by, at most `max_tokens`, at least one."""
        for prompt in prompts:
            self.check_tokens(np.asarray(prompt), what="the prompt")
            if self.limit is not None and len(prompt) == self.limit.tokens:
                raise ModelError(
                    f"the prompt has {len(prompt)} tokens, but {self.limit.reason}, which leaves "
                    "none for a completion: shorten it"
                )
        if self.limit is None:
            return [max_tokens] * len(prompts)
        return [min(max_tokens, self.limit.tokens - len(prompt)) for prompt in prompts]

    def _unknown(self, what: str, token: int, tokenizer: Any = None) -> DataError:
        text = "" if tokenizer is None else f" ({tokenizer.convert_ids_to_tokens([token])[0]!r})"
        return DataError(
            f"{what} holds the token id {token}{text}, but the model has embeddings for "
            f"{self.vocabulary} tokens, 0 to {(self.vocabulary or 0) - 1}: take the model's own "
            "tokenizer, or resize the model's embeddings and save it"
        )


def _few(rows: np.ndarray) -> str:
    shown = ", ".join(map(str, rows[:3]))
    return f"{shown}, …" if len(rows) > 3 else shown
