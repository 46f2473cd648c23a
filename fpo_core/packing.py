"""The batch of a fast step: where each token runs, once, and where the scored ones then lie.

A *layout* says where the tokens of a batch stand in the model's pass. `Row` puts them in one row
without padding, `Split` pads prompts and completions apart. Both run a shared prompt once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fpo_core.data.batches import PAD_ID, Batch

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scored:
    """The N scored tokens of n sequences, one sequence after the other."""

    labels: Ints
    """(N,) the tokens."""
    predictors: Ints
    """(N,) where the pass stands when it predicts each token, an index into its flat tokens."""
    places: Ints
    """(N,) where the token itself stands."""
    bounds: Ints
    """(n + 1,) sequence s holds the tokens from bounds[s] up to bounds[s + 1]."""
    feature_mask: Floats
    """(N,) 1 at tokens that the autoencoder was trained on, else 0."""

    @classmethod
    def of(
        cls, batch: Batch, untrained: Sequence[int], prompts_at: Ints, completions_at: Ints
    ) -> "Scored":
        """The scored tokens where the prompt of each sequence begins at `prompts_at` (n,), and its
        completion at `completions_at` (n,). A first token that nothing predicts is not scored.
        """
        prompts, lengths = batch.prompt_lengths.astype(np.int64), batch.lengths.astype(np.int64)
        first = np.maximum(prompts, 1)
        counts = np.maximum(lengths - first, 0)
        bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        row = np.repeat(np.arange(len(counts)), counts)
        position = np.arange(bounds[-1]) - bounds[row] + first[row]

        def standing(position: Ints) -> Ints:
            inside = position < prompts[row]
            return np.where(
                inside, prompts_at[row] + position, completions_at[row] + position - prompts[row]
            )

        labels = batch.tokens[row, position].astype(np.int64)
        known = ~np.isin(labels, np.asarray(untrained, np.int64))
        return cls(
            labels, standing(position - 1), standing(position), bounds, known.astype(np.float32)
        )

    @classmethod
    def in_rectangle(cls, batch: Batch, untrained: Sequence[int] = ()) -> "Scored":
        """The scored tokens of a batch that runs as it is, padded, nothing shared."""
        start = np.arange(len(batch.tokens)) * batch.width
        return cls.of(batch, untrained, start, start + batch.prompt_lengths)

    @property
    def lengths(self) -> Floats:
        """(n,) |y|, the tokens scored of each sequence."""
        return np.diff(self.bounds).astype(np.float32)

    @property
    def membership(self) -> Floats:
        """(n, N) 1 where a token belongs to a sequence, else 0."""
        row = np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))
        return (row == np.arange(len(self.bounds) - 1)[:, None]).astype(np.float32)

    @property
    def feature_lengths(self) -> Floats:
        """(n,) n_D, the tokens of each sequence that count in c̄."""
        return (self.membership * self.feature_mask).sum(1).astype(np.float32)

    @property
    def shares(self) -> Floats:
        """(n, N) the weight of each token's features in each c̄: 1 / n_D or 0."""
        counts = np.maximum(self.feature_lengths, 1)[:, None]
        return (self.membership * self.feature_mask / counts).astype(np.float32)


@dataclass(frozen=True)
class Run:
    """A prompt and the completions that go on from it, side by side in a row."""

    prompt: int
    """Its tokens; 0 where the one completion is a whole sequence."""
    completions: tuple[int, ...]
    """The tokens of each. None sees another."""

    @property
    def parts(self) -> tuple[int, ...]:
        """Tokens of the prompt, where there is one, and of each completion."""
        return (self.prompt, *self.completions) if self.prompt else self.completions


@dataclass(frozen=True)
class Row:
    """A batch as one row of runs, without padding."""

    tokens: Ints
    """(t,) token ids."""
    positions: Ints
    """(t,) the place of each token in its own sequence, from 0."""
    runs: tuple[Run, ...]
    scored: Scored

    @classmethod
    def of(cls, batch: Batch, untrained: Sequence[int] = ()) -> "Row":
        """The row of a batch: pairs with a prompt in common as one run, other sequences alone."""
        count = len(batch.tokens)
        prompts_at, completions_at = np.zeros(count, np.int64), np.zeros(count, np.int64)
        tokens: list[npt.NDArray[np.int32]] = []
        positions: list[npt.NDArray[np.int64]] = []
        runs: list[Run] = []
        at = 0
        for rows in _families(batch):
            prompt = int(batch.prompt_lengths[rows[0]])
            lengths = [int(batch.lengths[row]) - prompt for row in rows]
            tokens += [batch.tokens[rows[0], :prompt]]
            positions += [np.arange(prompt)]
            prompts_at[rows] = at
            at += prompt
            for row, length in zip(rows, lengths, strict=True):
                tokens += [batch.tokens[row, prompt : prompt + length]]
                positions += [np.arange(prompt, prompt + length)]
                completions_at[row] = at
                at += length
            alone = len(rows) == 1
            runs += [Run(0, (prompt + lengths[0],)) if alone else Run(prompt, tuple(lengths))]
        return cls(
            np.concatenate(tokens).astype(np.int64),
            np.concatenate(positions).astype(np.int64),
            tuple(runs),
            Scored.of(batch, untrained, prompts_at, completions_at),
        )

    def members(self) -> tuple[Ints, Ints]:
        """(t,) the run that each token is of, and its part of it: 0 the prompt, then completions.

        A token sees those of its run that stand no later, in the prompt or its own part.
        """
        parts = [(run.prompt, *run.completions) for run in self.runs]
        number = [np.full(sum(sizes), i) for i, sizes in enumerate(parts)]
        part = [np.repeat(np.arange(len(sizes)), sizes) for sizes in parts]
        return np.concatenate(number), np.concatenate(part)


@dataclass(frozen=True)
class Split:
    """A batch of pairs as b prompts and 2b completions, each padded on the right."""

    prompts: npt.NDArray[np.int32]
    """(b, p) token ids."""
    completions: npt.NDArray[np.int32]
    """(2b, r) token ids."""
    prompt_lengths: npt.NDArray[np.int32]
    """(2b,) where each completion goes on."""
    scored: Scored
    """Its indices count the prompts' tokens first, then the completions'."""

    @classmethod
    def of(cls, batch: Batch, untrained: Sequence[int] = ()) -> "Split | None":
        """The split of a batch; None where any pair has no prompt in common."""
        families = _families(batch)
        if any(len(rows) == 1 for rows in families):
            return None
        pairs = batch.pairs
        prompts = batch.prompt_lengths
        width, rest = int(prompts.max()), int(batch.completion_lengths().max())
        completions = np.full((2 * pairs, rest), PAD_ID, np.int32)
        for row, place in enumerate(completions):
            own = batch.tokens[row, prompts[row] : batch.lengths[row]]
            place[: len(own)] = own
        column = np.arange(width)
        heads = np.where(
            column < prompts[:pairs, None], batch.tokens[:pairs, :width], PAD_ID
        ).astype(np.int32)
        sequence = np.arange(2 * pairs)
        scored = Scored.of(
            batch, untrained, sequence % pairs * width, pairs * width + sequence * rest
        )
        return cls(heads, completions, prompts, scored)

    def visible(self, window: int | None) -> npt.NDArray[np.bool_]:
        """(2b, 1, r, p + r): which prompt and own tokens each completion token attends to.

        With a sliding window, only the last `window` tokens up to and including itself.
        """
        width, rest = self.prompts.shape[1], self.completions.shape[1]
        prompt = self.prompt_lengths[:, None, None]
        query = prompt + np.arange(rest)[:, None]
        slot = np.arange(width + rest)
        key = np.where(slot < width, slot, prompt + slot - width)
        seen = ((slot >= width) | (slot < prompt)) & (key <= query)
        if window is not None:
            seen &= query - key < window
        return seen[:, None]


def _families(batch: Batch) -> list[list[int]]:
    """Rows that go on from one prompt, as positions in the batch."""
    pairs = batch.pairs
    if 2 * pairs != len(batch.tokens):
        return [[row] for row in range(len(batch.tokens))]
    families: list[list[int]] = []
    for row in range(pairs):
        prompt = int(batch.prompt_lengths[row])
        same = batch.prompt_lengths[pairs + row] == prompt and prompt > 0
        same = same and (batch.tokens[row, :prompt] == batch.tokens[pairs + row, :prompt]).all()
        families += [[row, pairs + row]] if same else [[row], [pairs + row]]
    return families


def chunk_rows(budget: int, width: int, copies: int = 1) -> int:
    """Rows of `width` float32 numbers that fit `copies` times into `budget` MiB; at least one."""
    return max(1, budget * 2**20 // (4 * copies * width))
