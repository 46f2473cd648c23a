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
Pairs with the same prompt share it too, and a completion that several of them have stands once.
`Row` is that row, `Scored` says where in it each scored token stands and is predicted, `Rectangles`
cuts it up for a framework whose attention kernels take dense, padded arrays.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fpo_core.data.batches import Batch

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
_NONE: Ints = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Scored:
    """The N scored tokens of n sequences, one sequence after the other, in the batch's order.

    Of sequences with the same tokens perhaps one alone is listed: then they all hold its tokens.
    """

    labels: Ints
    """(N,) the tokens."""
    predictors: Ints
    """(N,) index in the row of the token before each: the state there predicts it."""
    places: Ints
    """(N,) index in the row of the token itself: features are read there."""
    spans: Ints
    """(n, 2) sequence s holds the tokens from spans[s, 0] up to spans[s, 1]."""
    feature_mask: Floats
    """(N,) 1 at tokens that the autoencoder was trained on, else 0."""

    @classmethod
    def of(
        cls,
        batch: Batch,
        untrained: Sequence[int],
        prompts_at: Ints,
        completions_at: Ints,
        listed: Ints | None = None,
    ) -> "Scored":
        """The scored tokens of a batch whose prompts begin at `prompts_at` (n,) in the row, and
        its completions at `completions_at` (n,). A first token that nothing predicts is not scored.

        `listed` (n,) is the sequence whose tokens stand for each one's; by default its own.
        """
        prompts, lengths = batch.prompt_lengths.astype(np.int64), batch.lengths.astype(np.int64)
        first = np.maximum(prompts, 1)
        numbers = np.arange(len(lengths))
        listed = numbers if listed is None else listed
        counts = np.maximum(lengths - first, 0) * (listed == numbers)
        ends = np.cumsum(counts)
        starts = ends - counts
        sequence = np.repeat(numbers, counts)
        position = np.arange(len(sequence)) - starts[sequence] + first[sequence]

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
        spans = np.stack([starts, ends], 1)[listed]
        return cls(labels, index(position - 1), index(position), spans, trained.astype(np.float32))

    @property
    def lengths(self) -> Floats:
        """(n,) |y|, the tokens scored of each sequence."""
        return np.diff(self.spans)[:, 0].astype(np.float32)

    @property
    def membership(self) -> Floats:
        """(n, N) 1 where a token belongs to a sequence, else 0."""
        # A mask and a sum, not a segment sum: that is spelt alike and deterministic everywhere,
        # and n is a few pairs.
        token, (start, end) = np.arange(len(self.labels)), self.spans.T[..., None]
        return ((start <= token) & (token < end)).astype(np.float32)

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
    def of(
        cls,
        batch: Batch,
        untrained: Sequence[int] = (),
        *,
        every: bool = False,
        virtual: npt.NDArray[Any] = _NONE,
    ) -> "Row":
        """The row of a batch: sequences of pairs with a prompt in common as one run, others alone.

        With `every`, a completion of several pairs is scored for each, though it runs once. Each
        run begins with the ids `virtual` (n,), whose positions are the first n of its sequences.
        """
        extra = len(virtual)
        prompts_at, completions_at, listed = np.zeros((3, len(batch.tokens)), np.int64)
        spans: list[tuple[int, int, int]] = []  # sequence, first position, last + 1
        runs: list[Run] = []
        at = 0
        for completions in _by_prompt(batch):
            first = completions[0][0]
            prompt = int(batch.prompt_lengths[first])
            lengths = [int(batch.lengths[equal[0]]) - prompt for equal in completions]
            spans.append((first, -extra, prompt))
            prompts_at[[sequence for equal in completions for sequence in equal]] = at + extra
            at += extra + prompt
            for equal, length in zip(completions, lengths, strict=True):
                spans.append((equal[0], prompt, prompt + length))
                completions_at[equal] = at
                listed[equal] = equal if every else equal[0]
                at += length
            alone = len(completions) == 1
            prompt += extra
            runs.append(Run(0, (prompt + lengths[0],)) if alone else Run(prompt, tuple(lengths)))
        tokens = np.concatenate(
            [
                part
                for row, start, end in spans
                for part in (virtual[: max(-start, 0)], batch.tokens[row, max(start, 0) : end])
            ]
        )
        # Positions count from the start of the sequence: rotary embeddings must not see the row.
        positions = np.concatenate([np.arange(start, end) for _, start, end in spans]) + extra
        scored = Scored.of(batch, untrained, prompts_at, completions_at, listed)
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
    Prompts come before sequences alone.
    """

    roots: Ints
    """(f, p) the index in the row of each root's tokens; t, one past the row's end, is padding."""
    branches: Ints
    """(c, r) the same of the branches, prompt by prompt."""
    slots: Ints
    """(t,) the way back: each token's index in the flattened roots, then branches."""
    prompts: Ints
    """(c,) tokens of the prompt that each branch goes on from."""
    fans: tuple[int, ...]
    """Branches of each root that has some."""

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
        shared = [run for run in runs if run.prompt]
        fans = tuple(len(run.completions) for run in shared)
        lengths = np.repeat(np.array([run.prompt for run in shared], np.int64), fans)
        return cls(roots, leaves, slots, lengths, fans)

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


def _by_prompt(batch: Batch) -> list[list[list[int]]]:
    """Sequences of pairs, by their prompt and then by their completion; others, each alone."""
    if 2 * batch.pairs != len(batch.tokens):
        return [[[sequence]] for sequence in range(len(batch.tokens))]
    prompts: dict[Any, dict[bytes, list[int]]] = {}
    # Chosen and rejected of a pair, then of the next.
    for sequence in np.arange(2 * batch.pairs).reshape(2, -1).T.ravel().tolist():
        prompt, length = int(batch.prompt_lengths[sequence]), int(batch.lengths[sequence])
        tokens = batch.tokens[sequence]
        # Without a prompt there is nothing to share.
        key = tokens[:prompt].tobytes() if prompt else sequence
        completions = prompts.setdefault(key, {})
        completions.setdefault(tokens[prompt:length].tobytes(), []).append(sequence)
    return [list(completions.values()) for completions in prompts.values()]


def chunk_rows(budget: int, width: int, copies: int = 1) -> int:
    """Rows of `width` float32 numbers that fit `copies` times into `budget` MiB; at least one."""
    return max(1, budget * 2**20 // (4 * copies * width))
