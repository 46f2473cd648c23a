"""Phase 1: score every pair once with the frozen model and store the results (§3)."""

import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fpo_core import __version__
from fpo_core.backend.policy import Policy
from fpo_core.backend.process_group import ALONE, Group, gather_scores, joined, wait
from fpo_core.config import ReferenceConfig
from fpo_core.data.batches import collate
from fpo_core.data.batching import scoring_batches
from fpo_core.data.token_store import Int64s, TokenisedPairs
from fpo_core.errors import StoreError
from fpo_core.events import Event, Sink, silent
from fpo_core.io.ownership import check_foreign
from fpo_core.loss.scores import Scores
from fpo_core.reference.key import StoreKey
from fpo_core.reference.reader import ReferenceStore
from fpo_core.reference.writer import StoreWriter, is_store_folder
from fpo_core.sae.load import describe_pooling
from fpo_core.sae.taps import Features


def store_key(model: str, adapter: str | None, features: Features | None) -> StoreKey:
    """The key of a run's reference, from the fingerprints of model and adapter."""
    if features is None:
        return StoreKey(model, adapter)
    pooling = describe_pooling(features)
    payloads = "+".join(sae.payload_sha256 for sae in features.saes)
    return StoreKey(model, adapter, payloads, "+".join(map(str, features.hooks)), pooling)


def missing_pairs(folder: Path, key: StoreKey, splits: Sequence[TokenisedPairs]) -> list[list[int]]:
    """Per split, the positions of the pairs that the store lacks; all where there is no store.

    Raises StoreError where the store was made with another key.
    """
    return _missing(_open(folder, key, silent), splits)


def _open(folder: Path, key: StoreKey, emit: Sink) -> ReferenceStore | None:
    """The store, or None where there is none. Raises StoreError where its key differs.

    Damaged shards are left out, with a warning.
    """
    if not ReferenceStore.exists(folder):
        return None
    key.check(ReferenceStore.key_of(folder), folder)
    return ReferenceStore.open(folder, lambda text: emit(Event("warning", 0, {"message": text})))


def _missing(store: ReferenceStore | None, splits: Sequence[TokenisedPairs]) -> list[list[int]]:
    if store is None:
        return [list(range(len(split))) for split in splits]
    return [store.missing(split.keys()) for split in splits]


def extend_store(
    folder: Path,
    key: StoreKey,
    policy: Policy,
    splits: Sequence[TokenisedPairs],
    config: ReferenceConfig,
    emit: Sink,
    group: Group = ALONE,
    widths: Sequence[int] = (),
) -> ReferenceStore:
    """Score the pairs that the store lacks with the frozen policy; create the store if absent.

    `widths` are the d_sae of each autoencoder, where there are several. After an interruption the
    next call continues from the last complete shard. An extended store retains its feature cap and
    precision. The processes of a group share the batches; the first writes the same store that a
    single process would.

    Batches are those of a pass over all pairs, whatever is stored already: a batch that lacks one
    pair is scored whole. So a pass that was interrupted gives the same bits. Pairs that another
    command stored, from other data or settings, are taken as they are.
    """
    check_foreign([folder.resolve()], is_store_folder, "reference")
    store = _open(folder, key, emit)
    missing = _missing(store, splits)
    if store is not None and not any(missing):
        return store
    wait(group)  # no process may write before all have read what is missing
    writer = None if group.rank else _writer(folder, store, key, policy, config, widths)
    progress = _Progress(sum(map(len, missing)), emit)
    for split, positions in zip(splits, missing, strict=True):
        lacking = np.zeros(len(split), bool)
        lacking[positions] = True
        for batch, scores in _scored(policy, split, lacking, config.tokens_per_batch, group):
            new = lacking[batch]
            if writer is not None:
                both = np.concatenate([new, new])  # chosen, then rejected
                keys = [split[int(i)].key for i in batch[new]]
                writer.add(keys, scores.map(lambda array, both=both: array[both]))
            progress.advance(int(new.sum()), split.num_tokens(batch[new]))
    if writer is not None:
        writer.close()
    wait(group)
    return ReferenceStore.open(folder)


def _writer(
    folder: Path,
    store: ReferenceStore | None,
    key: StoreKey,
    policy: Policy,
    config: ReferenceConfig,
    widths: Sequence[int],
) -> StoreWriter:
    manifest = None if store is None else store.manifest
    if manifest is not None and manifest["key"]["sae"] is not None and key.sae is None:
        raise StoreError(
            f"the reference store {folder} holds features and lacks some pairs, which a run "
            "without an autoencoder cannot add: set sae, or name another reference folder"
        )
    made_with = {
        "fpo": __version__,
        "backend": policy.info.backend,
        "dtype": policy.info.dtype,
        "quantisation": policy.info.quantisation,
    }
    return StoreWriter(
        folder,
        key if manifest is None else StoreKey(**manifest["key"]),
        cap=config.feature_cap if manifest is None else manifest["feature_cap"],
        dtype=config.feature_dtype if manifest is None else manifest["feature_dtype"],
        rows_per_shard=config.rows_per_shard,
        widths=widths,
        made_with=made_with if manifest is None else manifest["made_with"],
        shards=None if manifest is None else manifest["shards"],
        damaged=() if store is None else store.damaged,
    )


def _scored(
    policy: Policy,
    split: TokenisedPairs,
    lacking: npt.NDArray[np.bool_],
    tokens_per_batch: int,
    group: Group,
) -> Iterator[tuple[Int64s, Scores]]:
    """Rows of a split and their scores, gathered from one batch per process at a time."""
    rows = _first_of_equals(split)
    plan = scoring_batches(split.lengths()[rows], tokens_per_batch, split.prompts(rows))
    plan = [batch for batch in plan if lacking[rows[batch]].any()]
    for first in range(0, len(plan), group.size):
        batches = plan[first : first + group.size]
        local = None  # the last round may have fewer batches than processes
        if group.rank < len(batches):
            local = policy.score(collate(split, rows[batches[group.rank]]))
        elif policy.info.sharded:  # a pass over it is one of all processes
            policy.score(collate(split, rows[batches[0]]))
        ends = np.cumsum([0, *map(len, batches)] + [0] * (group.size - len(batches)))
        owners = [np.arange(*part) for part in pairwise(ends)]
        yield rows[joined(batches)], gather_scores(group, local, owners)


def _first_of_equals(split: TokenisedPairs) -> Int64s:
    """Positions of pairs, each key once."""
    first: dict[bytes, int] = {}
    for position, key in enumerate(split.keys()):
        first.setdefault(key, position)
    return np.fromiter(first.values(), np.int64, len(first))


class _Progress:
    def __init__(self, total: int, emit: Sink) -> None:
        self._total, self._emit = total, emit
        self._done = self._tokens = 0
        self._start = time.monotonic()

    def advance(self, pairs: int, tokens: int) -> None:
        self._done += pairs
        self._tokens += tokens
        elapsed = max(time.monotonic() - self._start, 1e-9)
        values = {
            "pairs": self._done,
            "total": self._total,
            "tokens_per_second": self._tokens / elapsed,
            "eta_seconds": elapsed / self._done * (self._total - self._done),
        }
        self._emit(Event("reference", 0, values))
