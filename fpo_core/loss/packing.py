"""Packing: a batch as one row of tokens without padding, in which a shared prompt stands once.

Two pairs with prompts p and q, chosen c and d, rejected r and s, tokens numbered by position:

    token          p0 p1 c2 c3 c4 r2   q0 d1 s1 s2
    part            0  0  1  1  1  2    0  1  2  2
    predicted by    ·  · p1 c2 c3 p1    · q0 q0 s1     (scored tokens)

    sees           p0 p1 c2 c3 c4 r2
             p1     x  x
             c3     x  x  x  x
             r2     x  x           x                    its prompt and itself, not the other side

With these positions and this mask, a forward pass over the row gives each completion the states of
an unpadded pass over prompt + completion, at the cost of P + R_w + R_l tokens, not 2P + R_w + R_l.
`Row` is that row, `Scored` says where in it each scored token stands and is predicted, `Rectangles`
cuts it up for a framework whose attention kernels take dense, padded arrays.
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
    """The N scored tokens of n sequences, one sequence after the other, in the batch's order."""

    labels: Ints
    """(N,) the tokens."""
    predictors: Ints
    """(N,) index in the row of the token before each: the state there predicts it."""
    places: Ints
    """(N,) index in the row of the token itself: features are read there."""
    bounds: Ints
    """(n + 1,) sequence s holds the tokens from bounds[s] up to bounds[s + 1]."""
    feature_mask: Floats
    """(N,) 1 at tokens that the autoencoder was trained on, else 0."""

    @classmethod
    def of(
        cls, batch: Batch, untrained: Sequence[int], prompts_at: Ints, completions_at: Ints
    ) -> "Scored":
        """The scored tokens of a batch whose prompts begin at `prompts_at` (n,) in the row, and
        its completions at `completions_at` (n,). A first token that nothing predicts is not scored.
        """
        prompts, lengths = batch.prompt_lengths.astype(np.int64), batch.lengths.astype(np.int64)
        first = np.maximum(prompts, 1)
        counts = np.maximum(lengths - first, 0)
        bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        sequence = np.repeat(np.arange(len(counts)), counts)
        position = np.arange(bounds[-1]) - bounds[sequence] + first[sequence]

        def index(position: Ints) -> Ints:
            """Of a position in its sequence, the index in the row."""
            # The prompt's tokens and the completion's are each contiguous, but a rejected
            # completion doesn't follow its prompt: the chosen one lies between.
            into_completion = position - prompts[sequence]
            return np.where(
                into_completion < 0,
                prompts_at[sequence] + position,
                completions_at[sequence] + into_completion,
            )

        labels = batch.tokens[sequence, position].astype(np.int64)
        trained = ~np.isin(labels, np.asarray(untrained, np.int64))
        return cls(labels, index(position - 1), index(position), bounds, trained.astype(np.float32))

    @property
    def lengths(self) -> Floats:
        """(n,) |y|, the tokens scored of each sequence."""
        return np.diff(self.bounds).astype(np.float32)

    @property
    def membership(self) -> Floats:
        """(n, N) 1 where a token belongs to a sequence, else 0."""
        # A mask and a sum, not a segment sum: that is spelt alike and deterministic everywhere,
        # and n is a few pairs.
        sequence = np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))
        return (sequence == np.arange(len(self.bounds) - 1)[:, None]).astype(np.float32)

    @property
    def feature_lengths(self) -> Floats:
        """(n,) n_D, the tokens of each sequence that count in c̄."""
        return (self.membership * self.feature_mask).sum(1).astype(np.float32)

    @property
    def shares(self) -> Floats:
        """(n, N) the weight of each token's features in each c̄: 1 / n_D or 0."""
        # A sequence without a token to count has c̄ = 0, not 0 / 0.
        counts = np.maximum(self.feature_lengths, 1)[:, None]
        return (self.membership * self.feature_mask / counts).astype(np.float32)


@dataclass(frozen=True)
class Run:
    """Lengths in tokens of a prompt and of the completions behind it in a row."""

    prompt: int
    """0 where the one completion is a whole sequence."""
    completions: tuple[int, ...]
    """None attends to another."""

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
        spans: list[tuple[int, int, int]] = []  # sequence, first position, last + 1
        runs: list[Run] = []
        at = 0
        for sequences in _sharing_a_prompt(batch):
            prompt = int(batch.prompt_lengths[sequences[0]])
            lengths = [int(batch.lengths[sequence]) - prompt for sequence in sequences]
            spans.append((sequences[0], 0, prompt))
            prompts_at[sequences] = at
            at += prompt
            for sequence, length in zip(sequences, lengths, strict=True):
                spans.append((sequence, prompt, prompt + length))
                completions_at[sequence] = at
                at += length
            alone = len(sequences) == 1
            runs.append(Run(0, (prompt + lengths[0],)) if alone else Run(prompt, tuple(lengths)))
        tokens = np.concatenate([batch.tokens[row, start:end] for row, start, end in spans])
        # Positions count from the start of the sequence: rotary embeddings must not see the row.
        positions = np.concatenate([np.arange(start, end) for _, start, end in spans])
        scored = Scored.of(batch, untrained, prompts_at, completions_at)
        return cls(tokens.astype(np.int64), positions, tuple(runs), scored)

    def members(self) -> tuple[Ints, Ints]:
        """(t,) the run of each token, and its part of that: 0 the prompt, then the completions.

        A token attends to those of its run that stand no later, in part 0 or its own.
        """
        parts = [(run.prompt, *run.completions) for run in self.runs]
        number = [np.full(sum(sizes), i) for i, sizes in enumerate(parts)]
        part = [np.repeat(np.arange(len(sizes)), sizes) for sizes in parts]
        return np.concatenate(number), np.concatenate(part)


@dataclass(frozen=True)
class Rectangles:
    """Where the t tokens of a row stand inside attention: in roots, and branches of some of them.

    A root is a prompt or a sequence alone, a branch a completion that goes on from its prompt. The
    roots form one rectangle and the branches another, padded on the right; in the picture above,
    roots (p0 p1 | q0 ·) and branches (c2 c3 c4 | r2 · · | d1 · · | s1 s2 ·). So two dense attention
    calls serve the whole row: roots causally, branches against their root's keys and their own.
    Prompts come before sequences alone, and have as many branches each.
    """

    roots: Ints
    """(f, p) the index in the row of each root's tokens; t, one past the row's end, is padding."""
    branches: Ints
    """(c, r) the same of the branches, prompt by prompt."""
    slots: Ints
    """(t,) the way back: each token's index in the flattened roots, then branches."""
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
        # Inverts the gather: every token of the row stands at exactly one slot that is no padding.
        slots = np.empty(total, np.int64)
        slots[flat[flat < total]] = np.flatnonzero(flat < total)
        lengths = [run.prompt for run in runs for _ in run.completions if run.prompt]
        return cls(roots, leaves, slots, np.array(lengths, np.int64), len(prompts))

    @property
    def width(self) -> int:
        """Tokens of the longest prompt with branches."""
        return int(self.prompts.max(initial=0))

    def visible(self, window: int | None) -> npt.NDArray[np.bool_]:
        """(c, r, width + r): which keys each token of a branch attends to.

        Keys are its root's first `width` tokens, then its own branch. With a sliding window, only
        the last `window` tokens up to and including itself.
        """
        width, rest = self.width, self.branches.shape[1]
        prompt = self.prompts[:, None, None]
        # Compare positions in the sequence: a short prompt is padded up to `width`, so its branch's
        # keys begin at slot `width` but at position `prompt`.
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


def _sharing_a_prompt(batch: Batch) -> list[list[int]]:
    """Sequences of the batch grouped by the prompt they go on from: pairs, or each alone."""
    pairs = batch.pairs
    if 2 * pairs != len(batch.tokens):
        return [[sequence] for sequence in range(len(batch.tokens))]
    groups: list[list[int]] = []
    for chosen, rejected in zip(range(pairs), range(pairs, 2 * pairs), strict=True):
        prompt = int(batch.prompt_lengths[chosen])
        # `collate` gives both sides one prompt; a batch from elsewhere may not.
        same = batch.prompt_lengths[rejected] == prompt and prompt > 0
        same = same and (batch.tokens[chosen, :prompt] == batch.tokens[rejected, :prompt]).all()
        groups += [[chosen, rejected]] if same else [[chosen], [rejected]]
    return groups


def chunk_rows(budget: int, width: int, copies: int = 1) -> int:
    """Rows of `width` float32 numbers that fit `copies` times into `budget` MiB; at least one."""
    return max(1, budget * 2**20 // (4 * copies * width))
