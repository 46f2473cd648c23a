"""The batch of a fast step: where each token runs, once, and where the scored ones then lie.

`Row` puts the tokens of a batch in one row without padding, in which a shared prompt stands once.
`Rectangles` says where they stand inside attention, for a framework that attends in rectangles.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fpo_core.data.batches import Batch

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
class Rectangles:
    """Where the t tokens of a row stand inside attention: roots, then branches of some of them.

    A root is a prompt or a sequence alone, a branch a completion that goes on from its prompt. Both
    are padded on the right. Prompts come before sequences alone, and have as many branches each.
    """

    roots: Ints
    """(f, p) each token's place in the row; t, which is past its end, where there is none."""
    branches: Ints
    """(c, r) the same of the branches, prompt by prompt."""
    slots: Ints
    """(t,) where each token of the row stands: a flat index into the roots, then the branches."""
    prompts: Ints
    """(c,) tokens of the prompt that each branch goes on from."""
    shared: int
    """Roots that have branches."""

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "Rectangles":
        """The rectangles of a row of runs."""
        sizes = [size for run in runs for size in run.parts]
        total = sum(sizes)
        parts = iter(np.split(np.arange(total), np.cumsum(sizes)[:-1]))
        prompts: list[Ints] = []
        alone: list[Ints] = []
        branches: list[Ints] = []
        for run in runs:
            (prompts if run.prompt else alone).append(next(parts))
            branches += itertools.islice(parts, len(run.parts) - 1)
        roots, leaves = _padded([*prompts, *alone], total), _padded(branches, total)
        flat = np.concatenate([roots.ravel(), leaves.ravel()])
        slots = np.empty(total, np.int64)
        slots[flat[flat < total]] = np.flatnonzero(flat < total)
        lengths = [run.prompt for run in runs for _ in run.completions if run.prompt]
        return cls(roots, leaves, slots, np.array(lengths, np.int64), len(prompts))

    @property
    def width(self) -> int:
        """Tokens of the longest prompt with branches."""
        return int(self.prompts.max(initial=0))

    def visible(self, window: int | None) -> npt.NDArray[np.bool_]:
        """(c, r, width + r): which tokens of its prompt and its own a branch's token attends to.

        With a sliding window, only the last `window` tokens up to and including itself.
        """
        width, rest = self.width, self.branches.shape[1]
        prompt = self.prompts[:, None, None]
        query = prompt + np.arange(rest)[:, None]
        slot = np.arange(width + rest)
        key = np.where(slot < width, slot, prompt + slot - width)
        seen = ((slot >= width) | (slot < prompt)) & (key <= query)
        return seen if window is None else seen & (query - key < window)


def _padded(parts: Sequence[Ints], pad: int) -> Ints:
    """The parts as rows, as wide as the longest: (n, w)."""
    rows = np.full((len(parts), max(map(len, parts), default=0)), pad, np.int64)
    for row, part in zip(rows, parts, strict=True):
        row[: len(part)] = part
    return rows


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
