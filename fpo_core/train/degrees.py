"""Variants of a batch's completions with a part removed, for SPO's degrees."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from fpo_core.config import TrainConfig
from fpo_core.data.batches import Batch, Degraded, collate
from fpo_core.data.token_store import Int32s, TokenisedPairs
from fpo_core.data.tokenizer import Tokenizer
from fpo_core.pairs.keywords import without_keywords, without_random_words


@dataclass(frozen=True)
class Degrader:
    """Draws one level of 0 … K − 1 a completion and step, and removes level / K of its phrases."""

    tokenizer: Tokenizer
    levels: int
    keywords: bool
    seed: int

    @classmethod
    def of(cls, config: TrainConfig, tokenizer: Tokenizer) -> Self | None:
        """That of a run; None where its loss has no degrees."""
        if not config.degree_weight:
            return None
        keywords = config.degree_removal == "keywords"
        return cls(tokenizer, config.degree_levels, keywords, config.seed)

    def degraded(self, batch: Batch, step: int) -> Batch:
        """The batch with its variants; they depend on seed, step and the pairs' rows alone."""
        count = len(batch.tokens)
        levels = np.zeros(count, np.int64)
        prompts, variants = [], []
        for i in range(count):
            side, place = divmod(i, batch.pairs)
            row = int(batch.rows[place])
            draw = np.random.PCG64([self.seed, step, row, side])
            levels[i] = int(draw.random_raw()) % self.levels
            prompt, completion = np.split(
                batch.tokens[i, : batch.lengths[i]], [batch.prompt_lengths[i]]
            )
            prompts.append(prompt)
            variants.append(self._variant(completion, int(levels[i]), draw))
        sides = zip(prompts, variants[: batch.pairs], variants[batch.pairs :], strict=False)
        pairs = TokenisedPairs.from_lists(sides)
        of_variants = replace(collate(pairs, range(batch.pairs)), rows=batch.rows)
        return replace(batch, degraded=Degraded(of_variants, levels))

    def _variant(self, completion: Int32s, level: int, draw: np.random.PCG64) -> list[int]:
        """A completion at a level; what ends it stays, and it never grows."""
        ids = completion.tolist()
        size = len(ids)
        while size and ids[size - 1] in self.tokenizer.all_special_ids:
            size -= 1
        text, share = self.tokenizer.decode(ids[:size]), level / self.levels
        if self.keywords:
            text = without_keywords(text, share)
        else:
            text = without_random_words(text, share, lambda n: draw.random_raw(n).tolist())
        # At level 0 too: what a second tokenisation changes must not tell the level.
        again = self.tokenizer(text, add_special_tokens=False).input_ids[:size]
        return [*again, *ids[size:]] or ids[:1]
