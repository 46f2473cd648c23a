"""Memory while a large reference store is written and read, and what it costs on disk and to open.

A stand-in for the model returns random scores, so that only the store is measured.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.interleave import peak_resident
from benchmarks.record import write_result
from fpo_core.backend.policy import PolicyInfo
from fpo_core.config import ReferenceConfig
from fpo_core.data.batches import Batch
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.loss.scores import Scores
from fpo_core.reference.build import extend_store
from fpo_core.reference.key import StoreKey
from fpo_core.reference.reader import ReferenceStore

D_SAE = 16384
SIZES = (200_000, 50), (60_000, 1000)
"""Rows of a store, and features of each completion."""


class RandomScores:
    """Scores a batch at once, with up to `features` random features per completion."""

    info = PolicyInfo("none", "cpu", "float32", None, 1, 1, 1, 1)

    def __init__(self, features: int) -> None:
        self._features = features
        self._generator = np.random.default_rng(0)

    def score(self, batch: Batch) -> Scores:
        """Log-probabilities and pooled features that fit the batch's shape."""
        count = len(batch.tokens)
        pooled = np.zeros((count, D_SAE), np.float32)
        for row in pooled:
            fired = self._generator.integers(0, D_SAE, self._features)
            row[fired] = self._generator.random(self._features, np.float32)
        lengths = batch.completion_lengths().astype(np.float32)
        return Scores(-lengths, lengths, pooled=pooled, feature_lengths=lengths)


def resident() -> int:
    """Resident bytes of anonymous memory; mapped pages of files do not count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith("RssAnon")) * 1024


def random_pairs(count: int) -> TokenisedPairs:
    """Short pairs, no two alike."""
    generator = np.random.default_rng(1)
    return TokenisedPairs.from_lists(
        (generator.integers(3, 9999, size).tolist() for size in (6, 4, 4)) for _ in range(count)
    )


def grow(rows: int, features: int, folder: Path) -> dict[str, Any]:
    """Write a store, then read every row; memory grows from a tenth of the rows to the end."""
    pairs = random_pairs(rows)
    config = ReferenceConfig(tokens_per_batch=2048)
    seen: list[int] = []
    extend_store(
        folder,
        StoreKey("random", sae="random"),
        RandomScores(features),  # pyright: ignore[reportArgumentType]
        [pairs],
        config,
        lambda event: seen.append(resident()),
    )
    size = sum(file.stat().st_size for file in folder.iterdir())
    start = time.perf_counter()
    store = ReferenceStore.open(folder)
    opened = time.perf_counter() - start
    keys = pairs.keys()
    before = resident()
    for at in range(0, rows, 8):
        store.batch(keys[at : at + 8], D_SAE)
    tenth = seen[len(seen) // 10]
    return {
        "rows": rows,
        "features": features,
        "written_growth_mb": (max(seen[len(seen) // 10 :]) - tenth) / 1e6,
        "read_growth_mb": (resident() - before) / 1e6,
        "peak_mb": peak_resident() / 1e6,
        "store_gb": size / 1e9,
        "open_seconds": opened,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the rows, for a quick look")
    share = parser.parse_args().share
    runs: list[dict[str, Any]] = []
    for rows, features in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            runs.append(grow(int(rows * share), features, Path(folder)))
        print("  ".join(f"{name} {value:.4g}" for name, value in runs[-1].items()))
    write_result("memory_growth", {"runs": runs})


if __name__ == "__main__":
    main()
