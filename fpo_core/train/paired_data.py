"""Pairs together with their stored reference."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Self

import numpy as np

from fpo_core.backend.process_group import ALONE, Group
from fpo_core.data.batches import Batch, collate
from fpo_core.data.batching import scoring_batches
from fpo_core.data.load import PreferenceData
from fpo_core.data.token_store import Int64s, TokenisedPairs
from fpo_core.loss.dense import ReferenceBatch
from fpo_core.reference.key import StoreKey
from fpo_core.reference.reader import ReferenceStore
from fpo_core.sae.taps import Features
from fpo_core.train.degrees import Degrader


@dataclass(frozen=True)
class RunData:
    """Training and validation pairs, and the store that holds the reference of both."""

    train: TokenisedPairs
    valid: TokenisedPairs | None
    store: ReferenceStore
    d_sae: int | None
    """Features of all autoencoders; None where the run has none."""
    weights: np.ndarray | None = None
    """(d_sae,) weights of the features that D compares; None for its top k."""
    group: Group = ALONE
    """The processes that share the run."""
    degrader: Degrader | None = None
    """What removes parts of completions, where the loss has degrees."""

    @classmethod
    def of(
        cls,
        data: PreferenceData,
        store: ReferenceStore,
        features: Features | None,
        group: Group = ALONE,
        degrader: Degrader | None = None,
    ) -> Self:
        """The pairs of a run with its reference, and what its autoencoder adds to that."""
        d_sae = None if features is None else sum(features.widths)
        weights = None if features is None else features.weights
        return cls(data.train, data.valid, store, d_sae, weights, group, degrader)

    def fingerprints(self) -> dict[str, str | None]:
        """What the run reads, by content, under the settings that name it."""
        return fingerprints(
            self.store.key,
            self.train,
            self.valid,
            features=self.d_sae is not None,
            weights=self.weights,
        )

    def batch(
        self, split: TokenisedPairs, rows: Sequence[int] | Int64s, step: int = 0
    ) -> tuple[Batch, ReferenceBatch]:
        """The pairs at `rows` and their reference; a loss of degrees has others in each `step`."""
        keys = [split[int(row)].key for row in rows]
        reference = self.store.batch(keys, self.d_sae)
        batch = collate(split, rows)
        if self.degrader is not None:
            batch = self.degrader.degraded(batch, step)
        return batch, replace(reference, weights=self.weights)

    def reference_logps(self, split: TokenisedPairs, rows: Int64s) -> np.ndarray:
        """(2b,) log π_ref(y|x) of the pairs at `rows`, chosen then rejected."""
        return np.asarray(self.store.batch([split[int(row)].key for row in rows], None).logps)

    def scan(
        self, split: TokenisedPairs, rows: Int64s, tokens_per_batch: int
    ) -> Iterator[tuple[Batch, ReferenceBatch]]:
        """All pairs at `rows`, in batches by length."""
        for chosen in scoring_batches(split.lengths()[rows], tokens_per_batch):
            yield self.batch(split, rows[chosen])


def fingerprints(
    key: StoreKey,
    train: TokenisedPairs,
    valid: TokenisedPairs | None,
    *,
    features: bool,
    weights: np.ndarray | None = None,
) -> dict[str, str | None]:
    """What a run reads, by content: model, starting adapter, autoencoder, its weights and pairs.

    `key` is that of its reference; a run without `features` reads none of a store that has them.
    """
    splits = (train,) if valid is None else (train, valid)
    return {
        "model": key.model,
        "adapter": key.adapter,
        "sae": key.sae if features else None,
        "feature_weights": None if weights is None else sha256(weights.tobytes()).hexdigest(),
        "data": "+".join(split.fingerprint() for split in splits),
    }


def spread(count: int, wanted: int) -> Int64s:
    """At most `wanted` positions spread evenly over `count`, the first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(np.int64))
