"""From a model's dense outputs to `Scores`: the plain path, the same lines for every framework.

In float64 on NumPy it is the oracle of the tests; a backend takes it under the setting `plain`, and
where its packed step does not fit a model. `fpo_core.loss.packed` computes the same from tokens.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fpo_core.arrays.ops import Array, Ops
from fpo_core.config import ObjectiveConfig
from fpo_core.data.batches import Batch
from fpo_core.loss import logps
from fpo_core.loss.scores import Scores
from fpo_core.sae.discrepancy import discrepancy, pool, straight_through, top_mask
from fpo_core.sae.sae import Sae
from fpo_core.sae.taps import Features

Forward = Callable[[Batch, int], tuple[Array, tuple[Array, ...]]]
"""A batch and a first column -> logits that predict the tokens from there on, and the activations
on those tokens, of each hook: (n, t, v), ((n, t, d_in), ...).
"""


@dataclass(frozen=True)
class Outputs:
    """A model's outputs for n sequences at t positions, already aligned with the tokens there."""

    logits: Array
    """(n, t, v) predictions *of* the token at each position."""
    hidden: tuple[Array, ...] = ()
    """(n, t, d_in) activations at each hook *on* the token at each position."""
    reference_logits: Array | None = None
    """(n, t, v) the same predictions by the reference, for the KL."""


@dataclass(frozen=True)
class Targets:
    """The tokens that outputs are scored against, aligned with them."""

    labels: Array
    """(n, t) integers: the token at each position."""
    mask: Array
    """(n, t) 0/1 floats: 1 at completion tokens."""
    feature_mask: Array
    """(n, t) 0/1 floats: 1 at the completion tokens that the autoencoder was trained on."""

    @classmethod
    def of(cls, batch: Batch, untrained: Sequence[int]) -> "tuple[Targets, int]":
        """The targets of a batch as NumPy arrays, and the first column that they cover.

        `untrained` are the token ids that the autoencoder was not trained on.
        """
        # Columns before the shortest prompt's end hold no completion; column 0 has no prediction.
        start = max(int(batch.prompt_lengths.min()), 1)
        labels = batch.tokens[:, start:]
        mask = batch.completion_mask()[:, start:]
        feature_mask = mask * ~np.isin(labels, np.asarray(untrained, np.int32))
        return cls(labels, mask, feature_mask.astype(np.float32)), start

    def astype(self, xp: Ops, like: Array) -> "Targets":
        """The same targets as arrays of the framework that `like` belongs to."""
        return Targets(
            *(xp.asarray(array, like) for array in (self.labels, self.mask, self.feature_mask))
        )


@dataclass(frozen=True)
class ReferenceBatch:
    """The stored reference of a batch: 2b sequences, chosen then rejected."""

    logps: Array
    """(2b,) log π_ref(y|x), summed, in nats."""
    pooled: Array | None = None
    """(2b, d_sae) c̄_ref, dense; 0 where nothing is stored."""
    truncated: Array | None = None
    """(2b,) 0/1 floats: 1 where the cap cut off part of c̄_ref."""
    weights: Array | None = None
    """(d_sae,) weights of the features that D compares; None for its top k."""

    def astype(self, xp: Ops, like: Array) -> "ReferenceBatch":
        """The same reference as arrays of the framework that `like` belongs to."""
        arrays = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return ReferenceBatch(
            **{
                name: None if array is None else xp.asarray(np.asarray(array, np.float32), like)
                for name, array in arrays.items()
            }
        )


def score_batch(
    xp: Ops,
    forward: Forward,
    batch: Batch,
    features: Features | None,
    *,
    reference: ReferenceBatch | None = None,
    objective: ObjectiveConfig | None = None,
    reference_forward: Forward | None = None,
    entropy: bool = False,
) -> Scores:
    """Run a model over a batch of b pairs and score it; see `score`.

    `features` holds arrays of the framework. `reference_forward`, for the KL, is the reference's
    pass; it runs first, so that its activations are freed before the policy's are kept.
    """
    targets, start = Targets.of(batch, () if features is None else features.untrained)
    reference_logits = None if reference_forward is None else reference_forward(batch, start)[0]
    logits, hidden = forward(batch, start)
    return score(
        xp,
        Outputs(logits, hidden, reference_logits),
        targets.astype(xp, logits),
        saes=() if features is None else features.saes,
        reference=None if reference is None else reference.astype(xp, logits),
        objective=objective,
        entropy=entropy,
    )


def score(
    xp: Ops,
    outputs: Outputs,
    targets: Targets,
    *,
    saes: Sequence[Sae] = (),
    reference: ReferenceBatch | None = None,
    objective: ObjectiveConfig | None = None,
    entropy: bool = False,
) -> Scores:
    """Score outputs of 2b sequences: log-probabilities always, the rest where it can be had.

    With autoencoders, the pooled features; with the stored reference too, D under `objective`;
    with reference logits, sequential KL. Each field of the result is (2b,) or (2b, d_sae).
    """
    mask = targets.mask
    kl = (
        None
        if outputs.reference_logits is None
        else logps.sequence_kl(xp, outputs.logits, outputs.reference_logits, mask)
    )
    scores = Scores(
        logps=logps.sequence_logps(xp, outputs.logits, targets.labels, mask),
        lengths=mask.sum(1),
        kl=kl,
        entropy=logps.sequence_entropy(xp, outputs.logits, mask) if entropy else None,
    )
    if not saes or not outputs.hidden:
        return scores
    tapped = list(zip(saes, outputs.hidden, strict=True))
    encoded = [pool(xp, sae.encode(xp, h), targets.feature_mask) for sae, h in tapped]
    pooled = concatenate_features(xp, encoded)
    # Spelt unlike the count in `pool`: MLX 0.32 fails to compile an output that it meets twice.
    count = xp.as_float(targets.feature_mask > 0).sum(1)
    features = dataclasses.replace(scores, pooled=pooled, feature_lengths=count)

    def pre_activation() -> Array:
        means = [sae.mean_pre_activation(xp, h, targets.feature_mask) for sae, h in tapped]
        return concatenate_features(xp, means)

    widths = [sae.d_sae for sae in saes]
    return compare_features(xp, features, widths, pre_activation, reference, objective)


def concatenate_features(xp: Ops, parts: Sequence[Array]) -> Array:
    """The features of several autoencoders as one vector: (n, m_s) of each -> (n, Σ m_s)."""
    return parts[0] if len(parts) == 1 else xp.concatenate(list(parts), 1)


def _split_features(array: Array, widths: Sequence[int]) -> list[Array]:
    """The features of each autoencoder again: (n, Σ m_s) -> (n, m_s) of each."""
    if len(widths) == 1:
        return [array]
    ends = np.cumsum(widths).tolist()
    return [array[:, end - width : end] for end, width in zip(ends, widths, strict=True)]


def compare_features(
    xp: Ops,
    scores: Scores,
    widths: Sequence[int],
    pre_activation: Callable[[], Array],
    reference: ReferenceBatch | None,
    objective: ObjectiveConfig | None,
) -> Scores:
    """Scores that hold pooled features, with D added where the reference's are there too.

    `widths` are the features of each autoencoder; D is the mean of theirs (appendix D.2).
    `pre_activation` gives the mean pre-activation of each feature, (2b, d_sae).
    """
    if reference is None or reference.pooled is None or objective is None:
        return scores
    if objective.straight_through:
        # A feature that is off at every token has no gradient, so D could not bring it back.
        pooled = straight_through(xp, scores.pooled, pre_activation(), reference.pooled)
        scores = dataclasses.replace(scores, pooled=pooled)
    split = (_split_features(array, widths) for array in (scores.pooled, reference.pooled))
    terms = [
        _discrepancy_terms(xp, policy, stored, reference.weights, objective)
        for policy, stored in zip(*split, strict=True)
    ]
    d, union, lost = (functools.reduce(operator.add, parts) for parts in zip(*terms, strict=True))
    d = d if len(terms) == 1 else d / len(terms)
    return dataclasses.replace(scores, d=d, union=union, outside_cap=lost * reference.truncated)


def _discrepancy_terms(
    xp: Ops, pooled: Array, stored: Array, weights: Array | None, objective: ObjectiveConfig
) -> tuple[Array, Array, Array]:
    """D, |I_k|, and the policy's top features that the reference lacks, each (2b,)."""
    d, union = discrepancy(
        xp, pooled, stored, objective.k, normalize=objective.normalize_d, weights=weights
    )
    # What the policy has on top and the store lacks is 0 in the reference, or was cut off there;
    # the caller knows which, by whether the cap was reached.
    policy = abs(xp.stop_gradient(pooled))
    compared = top_mask(xp, policy, objective.k) if weights is None else weights > 0
    lost = compared & (policy > 0) & (stored == 0)
    return d, union, xp.as_float(lost).sum(-1)
