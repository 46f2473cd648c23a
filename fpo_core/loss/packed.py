"""From the terms of single tokens to `Scores`: what the packed steps of both backends end in.

A packed step runs a batch as one row (`fpo_core.loss.packing`), asks the head at scored tokens
only, and returns N numbers in place of (n, t, v) logits.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fpo_core.arrays.ops import Array, Ops
from fpo_core.config import ObjectiveConfig
from fpo_core.data.batches import Batch, collate
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.errors import shorten
from fpo_core.loss import logps
from fpo_core.loss.dense import ReferenceBatch, compare_features, concatenate_features
from fpo_core.loss.packing import Scored
from fpo_core.loss.scores import Scores
from fpo_core.sae.sae import Sae


@dataclass(frozen=True)
class TokenTerms:
    """Quantities of N scored tokens from their logits, (N,) arrays; None where not asked for."""

    logps: Array
    """log π of the token."""
    kl: Array | None = None
    """KL(π_ref ‖ πθ) where the token is predicted."""
    entropy: Array | None = None
    """Entropy of that prediction."""

    def arrays(self) -> list[Array]:
        """The terms that were asked for, in the order of the fields."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return [value for value in values if value is not None]

    def map(self, call: Callable[[Array], Array]) -> "TokenTerms":
        """`call` of each term that was asked for."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return TokenTerms(*(None if value is None else call(value) for value in values))

    @classmethod
    def of(
        cls,
        xp: Ops,
        logits: Array,
        labels: Array,
        reference_logits: Array | None = None,
        *,
        entropy: bool = False,
    ) -> "TokenTerms":
        """The terms from logits (N, v) and labels (N,)."""
        return cls(
            logps.token_logps(xp, logits, labels),
            None if reference_logits is None else logps.token_kl(xp, logits, reference_logits),
            logps.token_entropy(xp, logits) if entropy else None,
        )

    @classmethod
    def join(cls, xp: Ops, parts: "list[TokenTerms]") -> "TokenTerms":
        """The terms of several chunks as one."""

        def joined(name: str) -> Array | None:
            values = [getattr(part, name) for part in parts]
            return None if values[0] is None else xp.concatenate(values, 0)

        return cls(**{field.name: joined(field.name) for field in dataclasses.fields(cls)})


Pool = Callable[..., Array]
"""A backend's streamed pooling: (sae, h, scored, shares, rows=, slots=) -> c̄ (n, d_sae).

Its gradient reaches the sequences `rows` alone, each through at most `slots` features.
"""


def score_tokens(
    xp: Ops,
    scored: Scored,
    terms: TokenTerms,
    features: Sequence[tuple[Sae, Array]],
    pool: Pool,
    reference: ReferenceBatch | None,
    objective: ObjectiveConfig | None,
) -> Scores:
    """Scores of n sequences from the terms of their N tokens.

    `features` are autoencoders with the activations on those tokens, (N, d_in), which `pool` turns
    into pooled features.
    """
    like = terms.logps
    member = xp.asarray(scored.membership, like) > 0

    def total(values: Array | None) -> Array | None:
        # where, not a product with the mask: 0 · inf is nan, and so is its gradient.
        return None if values is None else xp.where(member, values[None], 0.0).sum(1)

    scores = Scores(
        logps=total(terms.logps),
        lengths=xp.asarray(scored.lengths, like),
        kl=total(terms.kl),
        entropy=total(terms.entropy),
    )
    if not features:
        return scores
    shares = xp.asarray(scored.shares, like)
    scope = _gradient_scope(scored, reference, objective)
    pooled = concatenate_features(
        xp, [pool(sae, h, scored, shares, **scope) for sae, h in features]
    )

    def pre_activation() -> Array:
        means = [sae.pooled_pre_activation(xp, h, lambda z: shares @ z) for sae, h in features]
        return concatenate_features(xp, means)

    counts = xp.asarray(scored.feature_lengths, like)
    return compare_features(
        xp,
        dataclasses.replace(scores, pooled=pooled, feature_lengths=counts),
        [sae.d_sae for sae, _ in features],
        pre_activation,
        None if reference is None else reference.astype(xp, like),
        objective,
    )


def _gradient_scope(
    scored: Scored, reference: ReferenceBatch | None, objective: ObjectiveConfig | None
) -> dict[str, Any]:
    """Where D's gradient can be other than 0: `rows`, its sequences, and `slots`, the most features
    of each.
    """
    rows = range(len(scored.lengths))
    if objective is None or reference is None:
        return {"rows": rows[:0], "slots": 0}
    # δ holds sg(D_w), so the backward pass skips the chosen half. D compares I_k alone, at most k
    # features of policy and of reference each: the encoder's other columns get no gradient.
    weights = reference.weights
    slots = 2 * objective.k if weights is None else int(np.count_nonzero(np.asarray(weights)))
    return {"rows": rows[len(rows) // 2 :] if objective.stop_gradient else rows, "slots": slots}


TOLERANCES = {"float32": 1e-4, "bfloat16": 3e-2}
"""On log π per token, relative to the plain path's, beyond which a packed step is not trusted."""


def why_plain(
    plain: Callable[[Batch], Scores], packed: Callable[[Batch], Scores], vocab: int, dtype: str
) -> str | None:
    """Why the packed step cannot serve this model, from two scorings of two pairs; None if it can.

    The step relies on how a model library passes masks, positions and heads along, which a family
    that was never tested may do differently.
    """
    batch = _probe(vocab)
    expected = plain(batch)
    try:
        scores = packed(batch)
    except Exception as error:  # whatever an unknown model's code may raise
        reason = f"it failed ({type(error).__name__}: {shorten(error, 120)})"
    else:
        gap = np.abs(scores.logps - expected.logps).max() / np.abs(expected.logps).min()
        if gap < TOLERANCES[dtype]:
            return None
        reason = f"its log-probabilities differ by {gap:.2g}, relative to the plain step's"
    return f"the packed step does not serve this model, so the plain one is used: {reason}"


def _probe(vocab: int) -> Batch:
    generator = np.random.default_rng(0)

    def tokens(count: int) -> list[int]:
        return generator.integers(0, min(vocab, 1000), count).tolist()

    sizes = ((5, 4, 6), (3, 5, 2))
    pairs = TokenisedPairs.from_lists((tokens(p), tokens(w), tokens(r)) for p, w, r in sizes)
    return collate(pairs, range(len(sizes)))
