"""A pool: the fresh pairs of some steps of an online run, with their reference."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from fpo_core.config.online import Route
from fpo_core.data.batches import Batch, collate
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.loss.dense import ReferenceBatch
from fpo_core.loss.online import OnlineTerms
from fpo_core.train.paired_data import RunData

Ints = np.ndarray


@dataclass(frozen=True)
class Pool:
    """b fresh pairs, each in place of a pair of the data in a step.

    Among the rows of a step, which number the training pairs, those of the pool follow the last.
    """

    steps: Ints
    """(b,) the step that a pair belongs to."""
    places: Ints
    """(b,) whose place it takes among the pairs of that step."""
    pairs: TokenisedPairs
    reference: ReferenceBatch
    """Of 2b sequences, chosen, then rejected."""

    def rows(self, step: int, rows: Ints, after: int) -> Ints:
        """The rows of a step with those of the pool in their places; `after` are of the data."""
        mixed, fresh = rows.copy(), np.flatnonzero(self.steps == step)
        mixed[self.places[fresh]] = after + fresh
        return mixed

    def batch(self, data: RunData, rows: Ints) -> tuple[Batch, ReferenceBatch]:
        """The pairs at mixed rows and their reference."""
        first = len(data.train)
        pairs = [data.train[int(r)] if r < first else self.pairs[int(r) - first] for r in rows]
        batch = dataclasses.replace(collate(pairs, range(len(pairs))), rows=rows)
        return batch, dataclasses.replace(self._reference(data, rows), weights=data.weights)

    def reference_logps(self, data: RunData, rows: Ints) -> np.ndarray:
        """(2b,) log π_ref(y|x) of the pairs at mixed rows."""
        return np.asarray(self._reference(dataclasses.replace(data, d_sae=None), rows).logps)

    def _reference(self, data: RunData, rows: Ints) -> ReferenceBatch:
        fresh = rows >= len(data.train)
        places = rows[fresh] - len(data.train)
        both = np.concatenate([places, places + len(self.pairs)])
        stored = data.store.batch([data.train[int(r)].key for r in rows[~fresh]], data.d_sae)
        sides = np.concatenate([fresh, fresh])

        def mixed(name: str) -> np.ndarray | None:
            old, new = getattr(stored, name), getattr(self.reference, name)
            if old is None:
                return None
            result = np.zeros((len(sides), *old.shape[1:]), np.float32)
            result[~sides], result[sides] = old, new[both]
            return result

        logps = mixed("logps")
        assert logps is not None
        return ReferenceBatch(logps, mixed("pooled"), mixed("truncated"))

    def num_tokens(self, data: RunData, rows: Ints) -> int:
        """Tokens of the pairs at mixed rows, prompts counted on both sides."""
        first = len(data.train)
        old, new = rows[rows < first], rows[rows >= first] - first
        return data.train.num_tokens(old) + self.pairs.num_tokens(new)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The pool as arrays of a file, features by their non-zeros."""
        pairs = [self.pairs[i] for i in range(len(self.pairs))]
        sides = [np.concatenate([p.prompt, p.chosen, p.rejected]) for p in pairs]
        lengths = [(len(p.prompt), len(p.chosen), len(p.rejected)) for p in pairs]
        arrays = {
            "steps": self.steps,
            "places": self.places,
            "tokens": np.concatenate([np.zeros(0, np.int32), *sides]).astype(np.int32),
            "lengths": np.array(lengths, np.int64).reshape(-1, 3),
            "logps": np.asarray(self.reference.logps),
        }
        if self.reference.pooled is not None:
            pooled = np.asarray(self.reference.pooled)
            rows, columns = np.nonzero(pooled)
            arrays |= {"feature_rows": rows, "features": columns, "values": pooled[rows, columns]}
            arrays["truncated"] = np.asarray(self.reference.truncated)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], d_sae: int | None) -> Self:
        """The pool that `to_arrays` wrote, of a run with so many features."""
        parts = np.split(arrays["tokens"], np.cumsum(arrays["lengths"].ravel())[:-1])
        pairs = TokenisedPairs.from_lists(
            (parts[i].tolist(), parts[i + 1].tolist(), parts[i + 2].tolist())
            for i in range(0, 3 * len(arrays["lengths"]), 3)
        )
        reference = ReferenceBatch(arrays["logps"])
        if d_sae is not None:
            pooled = np.zeros((len(arrays["logps"]), d_sae), np.float32)
            pooled[arrays["feature_rows"], arrays["features"]] = arrays["values"]
            reference = ReferenceBatch(arrays["logps"], pooled, arrays["truncated"])
        return cls(arrays["steps"], arrays["places"], pairs, reference)


def online_terms(rows: Ints, first: int, route: Route, baseline: float) -> OnlineTerms | None:
    """SAIL's terms of mixed rows, of which those from `first` on are fresh; None without any."""
    fresh = (rows >= first) * route.weight
    if not fresh.any():
        return None
    return OnlineTerms(fresh * route.own_labels, fresh * route.score_term, baseline)
