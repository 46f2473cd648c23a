"""What a report shows of held-out pairs: each token before and after, and features that moved.

One pass of the policy over the pairs, streamed, with the stored reference's features; one of the
reference for what the store lacks, the log-probabilities of single tokens and features beyond its
cap; and a short one over the few completions in which the features shown are strongest.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fpo_core.arrays import numpy_ops
from fpo_core.backend.policy import Policy
from fpo_core.config import ObjectiveConfig
from fpo_core.data.batches import Batch, collate
from fpo_core.data.batching import scoring_batches
from fpo_core.data.token_store import Int64s, TokenisedPairs
from fpo_core.evaluation.feature_movement import BeyondCap, FeatureMove, FeatureMovement
from fpo_core.evaluation.texts import sequences
from fpo_core.events import Sink, progress, silent
from fpo_core.loss.objectives import rewards
from fpo_core.loss.scores import Scores
from fpo_core.loss.token_scores import token_bounds
from fpo_core.sae.taps import Features
from fpo_core.train.paired_data import RunData, spread

WITH_CONTEXTS = 40
"""Features, of those that moved most, that are shown with the texts where they are strongest."""


@dataclass(frozen=True)
class InspectedSide:
    """A completion's tokens and log π of each, in nats, under reference and policy."""

    ids: np.ndarray
    before: np.ndarray
    after: np.ndarray


@dataclass(frozen=True)
class InspectedPair:
    """A pair with its reward margin under the policy."""

    row: int
    """Its row in the data file, from 1."""
    prompt: np.ndarray
    chosen: InspectedSide
    rejected: InspectedSide
    margin: float
    """Reward of chosen less that of rejected, by the objective."""


@dataclass(frozen=True)
class Context:
    """Tokens of a completion with a feature's activation at each."""

    pair: int
    """Position among the pairs that were inspected."""
    side: int
    """0 chosen, 1 rejected."""
    ids: np.ndarray
    activations: np.ndarray


@dataclass(frozen=True)
class InspectedFeature:
    """A feature that moved, and the completions in which it is strongest."""

    move: FeatureMove
    contexts: list[Context]


@dataclass(frozen=True)
class Inspection:
    """What a report shows of a model on some pairs."""

    pairs: list[InspectedPair]
    features: list[InspectedFeature] = field(default_factory=list)
    d: tuple[float, float] | None = None
    """Mean D, chosen and rejected, which the contributions of all features add up to."""


@dataclass(frozen=True)
class ReferenceTokens:
    """What a store lacks of the reference, which keeps sums and the largest features."""

    logps: list[np.ndarray]
    """Of each token by completion: of pair p the chosen one at 2p, the rejected at 2p + 1."""
    beyond_cap: BeyondCap | None
    """Features that the store cut off; None without an autoencoder."""


def reference_tokens(
    policy: Policy,
    data: RunData,
    split: TokenisedPairs,
    rows: Int64s,
    tokens_per_batch: int,
    *,
    swap: bool,
    known: Mapping[int, Sequence[np.ndarray]] | None = None,
) -> ReferenceTokens:
    """The completions' tokens under the reference, and its features that the store cut off.

    That is the policy as it is; with `swap`, the weights of its `set_reference`. It runs over
    batches of which the store cut features, or that hold a pair whose log-probabilities (chosen,
    rejected) are not `known`, by place among `rows`.
    """
    known = known or {}
    logps = [np.zeros(0)] * (2 * len(rows))
    beyond = None if data.d_sae is None else BeyondCap(data.d_sae)
    for places, batch in _batches(split, rows, tokens_per_batch):
        keys = [split[int(r)].key for r in rows[places]]
        cut = np.flatnonzero(data.store.truncated(keys)) if beyond else ()
        if not len(cut) and all(int(place) in known for place in places):
            for place in map(int, places):
                logps[2 * place], logps[2 * place + 1] = known[place]
            continue
        scores = policy.token_scores(batch, features=len(cut) > 0, reference=swap)
        numbers = _numbers(places)
        for place, part in zip(numbers, _split(batch, scores.logps), strict=True):
            logps[place] = part
        if beyond is not None and scores.pooled is not None:
            stored = np.asarray(data.store.batch(keys, data.d_sae).pooled)
            beyond.add(scores.pooled[cut], stored[cut], numbers[cut] % 2)
    return ReferenceTokens(logps, beyond)


def inspect(
    policy: Policy,
    data: RunData,
    split: TokenisedPairs,
    objective: ObjectiveConfig,
    *,
    pairs: int,
    features: Features | None,
    shown_features: int,
    tokens_per_batch: int,
    before: ReferenceTokens,
    emit: Sink = silent,
) -> Inspection:
    """Inspect pairs spread over a split, of which `before` has the reference's side."""
    rows = spread(len(split), pairs)
    movement = None
    if features is not None:
        movement = FeatureMovement(features.widths, objective, features.weights, before.beyond_cap)
    after = [np.zeros(0)] * len(before.logps)
    margins = np.zeros(len(rows))
    done = 0
    for places, batch in _batches(split, rows, tokens_per_batch):
        scores = policy.token_scores(batch)
        reference = data.store.batch([split[int(r)].key for r in rows[places]], data.d_sae)
        numbers = _numbers(places)
        tokens = _split(batch, scores.logps)
        for place, logps in zip(numbers, tokens, strict=True):
            after[place] = logps
        margins[places] = _margins(tokens, np.asarray(reference.logps), objective)
        if movement is not None and scores.pooled is not None and scores.peaks is not None:
            movement.add(
                scores.pooled, np.asarray(reference.pooled), scores.peaks, numbers % 2, numbers
            )
        done += len(places)
        progress(emit, "report: pairs", done, len(rows))
    inspected = [
        _pair(split, int(row), before.logps[2 * i :][:2], after[2 * i :][:2], margins[i])
        for i, row in enumerate(rows)
    ]
    if movement is None:
        return Inspection(inspected)

    def completion(place: int) -> tuple[np.ndarray, np.ndarray]:
        pair = split[int(rows[place // 2])]
        return pair.prompt, pair.rejected if place % 2 else pair.chosen

    top = movement.top(shown_features)
    shown = inspect_features(policy, movement, top, completion, tokens_per_batch)
    return Inspection(inspected, shown, movement.d)


Completion = Callable[[int], tuple[np.ndarray, np.ndarray]]
"""Prompt and completion, as token ids, of a place that a `FeatureMovement` remembers."""


def inspect_features(
    policy: Policy,
    movement: FeatureMovement,
    top: Sequence[int] | Int64s,
    completion: Completion,
    tokens_per_batch: int,
) -> list[InspectedFeature]:
    """The features `top`, the first of them with the texts where they are strongest."""
    wanted = {int(f): movement.places(int(f)) for f in top[:WITH_CONTEXTS]}
    columns = np.array(list(wanted), np.int64)
    places = sorted({place for group in wanted.values() for place in group})
    texts = {place: completion(place) for place in places}
    values = _activations(policy, texts, columns, tokens_per_batch)
    return [
        InspectedFeature(
            movement.move(int(f)),
            [
                Context(place // 2, place % 2, texts[place][1][-len(a) :], a)
                for place in wanted.get(int(f), [])
                if len(a := values[place][:, i])
            ],
        )
        for i, f in enumerate(top)
    ]


def _activations(
    policy: Policy,
    texts: dict[int, tuple[np.ndarray, np.ndarray]],
    columns: np.ndarray,
    tokens_per_batch: int,
) -> dict[int, np.ndarray]:
    """Features at every scored token of some completions, by place: (tokens, columns) each."""
    places = list(texts)
    lengths = np.array([len(p) + len(c) for p, c in texts.values()], np.int64)
    values: dict[int, np.ndarray] = {}
    # Batches are planned for pairs, two sequences to a row; a completion is one.
    for part in scoring_batches(lengths, 2 * tokens_per_batch) if places else ():
        chosen = [places[int(i)] for i in part]
        rows = [np.concatenate(texts[place]).tolist() for place in chosen]
        batch = sequences(rows, [len(texts[place][0]) for place in chosen])
        scores = policy.token_scores(batch, columns)
        assert scores.columns is not None, "the policy reads an autoencoder"
        values |= dict(zip(chosen, _split(batch, scores.columns), strict=True))
    return values


def _batches(
    split: TokenisedPairs, rows: Int64s, tokens_per_batch: int
) -> Iterator[tuple[Int64s, Batch]]:
    for places in scoring_batches(split.lengths()[rows], tokens_per_batch):
        yield places, collate(split, rows[places])


def _numbers(places: Int64s) -> Int64s:
    """Pairs of a batch as numbers of completions, chosen then rejected: (b,) -> (2b,)."""
    return np.concatenate([2 * places, 2 * places + 1])


def _split(batch: Batch, values: np.ndarray) -> list[np.ndarray]:
    return np.split(values, token_bounds(batch)[1:-1])


def _margins(
    tokens: Sequence[np.ndarray], reference: np.ndarray, objective: ObjectiveConfig
) -> np.ndarray:
    logps = np.array([part.sum(dtype=np.float64) for part in tokens])
    scores = Scores(logps, np.array([float(len(part)) for part in tokens]))
    values = rewards(numpy_ops, scores, reference.astype(np.float64), objective)
    return values[: len(values) // 2] - values[len(values) // 2 :]


def _pair(
    split: TokenisedPairs,
    row: int,
    before: Sequence[np.ndarray],
    after: Sequence[np.ndarray],
    margin: float,
) -> InspectedPair:
    pair = split[row]
    chosen, rejected = (
        # A first token that nothing predicts is not scored.
        InspectedSide(np.asarray(ids[-len(b) :]), b, a)
        for ids, b, a in zip((pair.chosen, pair.rejected), before, after, strict=True)
    )
    return InspectedPair(pair.row, np.asarray(pair.prompt), chosen, rejected, float(margin))
