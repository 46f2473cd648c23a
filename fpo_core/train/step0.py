"""The check before step 1: where policy = reference, losses are known and D is 0."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from fpo_core.backend.policy import Policy
from fpo_core.backend.reference_weights import as_reference
from fpo_core.config import LINKS, ObjectiveConfig, TrainConfig
from fpo_core.data.batches import Batch
from fpo_core.errors import StoreError
from fpo_core.events import Event, Sink
from fpo_core.loss.dense import ReferenceBatch
from fpo_core.loss.metrics import losses_at_reference, pair_losses
from fpo_core.loss.scores import chosen, rejected
from fpo_core.train.paired_data import RunData, spread

TOLERANCES = {"float32": 1e-4, "bfloat16": 5e-3}
"""On the loss in nats, relative above 1; on D relative to the mean squared reference feature."""

NUDGE = 1e-4
"""Standard deviation of what `nudged` adds: absolute where weights are 0, else of their own."""


def _continuous(config: ObjectiveConfig) -> ObjectiveConfig:
    """The objective, with the logistic link where its own has a step, as padll at u = 0."""
    link = config.link_name
    if link is None or not LINKS[link].jumps:
        return config
    return replace(config.only(ObjectiveConfig), link="logistic")


def check_step0(policy: Policy, data: RunData, config: TrainConfig, emit: Sink) -> float | None:
    """Score pairs spread over the training rows; raise StoreError naming rows that do not agree.

    This detects a stale or foreign store, whatever its manifest claims. Source: §3 of the paper,
    where θ = ref at the start makes u = 0, hence a loss of log 2; without a reference in the
    margin (SimPO), u is what the stored log-probabilities make it, and a loss without u likewise.

    Returns the mean D of rejected completions, which is rounding alone: the floor of D in this
    precision. In bfloat16 it is that of `nudged` adapters, if larger: a stored pass may round as
    the step does until weights move. None where no pair is scored or there is no D.
    """
    if config.step0_pairs == 0:
        return None
    tolerance = TOLERANCES[policy.info.dtype]
    compared = _continuous(config)
    rows = spread(len(data.train), config.step0_pairs)
    failed: list[int] = []
    cut = 0
    worst, losses = 0.0, []
    floors: list[float] = []
    for batch, reference in data.scan(data.train, rows, config.tokens_per_batch):
        with as_reference(policy):
            scores = policy.score(batch, reference, config)
        logps = np.asarray(reference.logps)
        expected = losses_at_reference(scores, logps, config)
        # Relative where it is large: e^−u, or a loss near a pole, magnifies what is the same error.
        known = losses_at_reference(scores, logps, compared)
        gap = abs(pair_losses(scores, logps, compared) - known) / np.maximum(1, abs(known))
        drift = np.zeros(batch.pairs)
        if scores.d is not None:
            floors += rejected(scores.d).tolist()
            # D is relative to the reference's size: rounding of c̄ grows with it.
            relative = scores.d
            if not config.normalize_d:
                energy = np.maximum((np.asarray(reference.pooled) ** 2).sum(-1), 1e-12)
                relative = scores.d * config.k / energy
            drift = np.maximum(chosen(relative), rejected(relative))
        bad = (gap > tolerance) | (drift > tolerance) | ~np.isfinite(gap + drift)
        if reference.truncated is not None:
            sides = np.asarray(reference.truncated).reshape(2, -1) > 0
            cut += int((bad & sides.any(0)).sum())
        failed += [int(row) for row in data.train.source_rows()[batch.rows[bad]]]
        worst = max(worst, float(gap.max()))
        losses += expected.tolist()
    floor = float(np.mean(floors)) if floors else None
    # Not of all weights, of which a copy may not fit.
    adapters = config.fine_tune_type != "full" and not config.shard
    if floor is not None and policy.info.dtype == "bfloat16" and adapters:
        scanned = data.scan(data.train, rows, config.tokens_per_batch)
        with as_reference(policy):
            floor = max(floor, floor_of_rounding(policy, scanned, config))
    values = {"expected_loss": float(np.mean(losses)), "worst_gap": worst, "fpo/d_floor": floor}
    emit(Event("step0", 0, {"pairs": len(rows), "failed": len(failed)} | values))
    if failed and cut == len(failed) and config.feature_weights is not None:
        raise StoreError(
            f"D is not 0 at the start on {cut} of {len(rows)} sampled pairs, whose reference holds "
            f"the {config.feature_cap} strongest features and not all that feature_weights names: "
            "raise feature_cap and build the store again"
        )
    if failed:
        raise StoreError(
            f"the stored reference does not fit the model on {len(failed)} of {len(rows)} sampled "
            f"pairs (data rows {', '.join(map(str, sorted(failed)[:8]))}): the loss should be "
            f"that of the reference within {tolerance}; build the store again with the same "
            "dtype and backend"
        )
    return floor


def floor_of_rounding(
    policy: Policy, pairs: Iterable[tuple[Batch, ReferenceBatch]], config: TrainConfig
) -> float:
    """The mean D of rejected completions under `nudged` weights of the reference."""
    with nudged(policy, config.seed):
        scored = [policy.score(batch, reference, config) for batch, reference in pairs]
    return float(np.concatenate([rejected(np.asarray(scores.d)) for scores in scored]).mean())


@contextlib.contextmanager
def nudged(policy: Policy, seed: int) -> Iterator[None]:
    """Within, trained weights are off by so little that what changes is how activations round.

    Differences of one rounding spread from block to block, as in Monte Carlo arithmetic (Parker,
    1997), until the pass differs from the one before by as much as any two that round unalike.
    """
    weights = policy.trained()
    generator = np.random.default_rng(seed)

    def moved(w: np.ndarray) -> np.ndarray:
        size = float(np.abs(w).sum()) / max(w.size, 1) or 1.0
        return w + NUDGE * size * generator.standard_normal(w.shape, np.float32)

    policy.load_trained({name: moved(w) for name, w in sorted(weights.items())})
    try:
        yield
    finally:
        policy.load_trained(weights)
