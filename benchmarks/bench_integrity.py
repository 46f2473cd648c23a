"""What it costs that every file is hashed: of a run on SmolLM2, and when a store of 1 GB is opened.

Run: python -m benchmarks.bench_integrity [--cache FOLDER] [--iters 60] [--max-rows N]
                                          [--store-bytes 1000000000]

CPU seconds of everything that hashes (reading included) beside those of the whole process. The run
is that of examples/smollm2, its model and pairs in the cache.
"""

import argparse
import hashlib
import importlib
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import ROOT, write_result
from fpo_core.loss.scores import Scores
from fpo_core.reference.key import StoreKey
from fpo_core.reference.reader import ReferenceStore
from fpo_core.reference.writer import StoreWriter

_WHOLE = {
    "file_sha256": ("io.digests", "sae.sae", "data.sources"),
    "sampled_sha256": ("train.checkpoints", "models.folder"),
    "damages": ("train.checkpoints", "reference.shards", "data.cache", "adapters.integrity"),
}
"""Functions that read and hash files, and the modules of the core that use them."""
FEATURES = 1000
D_SAE = 16384


class Meter:
    """CPU seconds of functions, those that they call counted once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._inside = threading.local()

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, measured."""

        def measured(*args: Any, **options: Any) -> Any:
            if getattr(self._inside, "now", False):
                return function(*args, **options)
            self._inside.now, begin = True, time.thread_time()
            try:
                return function(*args, **options)
            finally:
                self.seconds += time.thread_time() - begin
                self._inside.now = False

        return measured

    def install(self) -> None:
        """Measure all that hashes from here on."""
        for name, modules in _WHOLE.items():
            for module in modules:
                loaded = importlib.import_module(f"fpo_core.{module}")
                setattr(loaded, name, self.wrap(getattr(loaded, name)))
        sha256, meter = hashlib.sha256, self

        class Hash:
            def __init__(self, data: bytes = b"") -> None:
                self._hash = meter.wrap(sha256)(data)
                self.update = meter.wrap(self._hash.update)
                self.digest, self.hexdigest = self._hash.digest, self._hash.hexdigest

        setattr(hashlib, "sha256", Hash)  # noqa: B010


def of_a_run(cache: str | None, iters: int, max_rows: int | None) -> dict[str, Any]:
    """Of `fpo train` on SmolLM2, from the first check to the model card."""
    sys.path.insert(0, str(ROOT / "examples" / "smollm2"))
    example = importlib.import_module("example").smollm2_example(cache)
    import fpo

    meter = Meter()
    meter.install()
    with tempfile.TemporaryDirectory() as folder:
        sae, output = f"{folder}/sae.safetensors", f"{folder}/run"
        fpo.convert_sae(source=example.sae, out=sae)
        settings = fpo.read_yaml(example.settings)
        few = {"iters": iters, "max_rows": max_rows, "cache": folder, "backend": "torch"}
        places = {"model": example.model, "data": example.pairs, "sae": sae, "output": output}
        meter.seconds, begin = 0.0, time.process_time()
        fpo.train(**settings | few | places, preflight=False)
        spent = time.process_time() - begin
    return {"iters": iters, "max_rows": max_rows, "cpu": spent, "hashing": meter.seconds}


def of_a_store(size: int, folder: Path) -> dict[str, float]:
    """To open a store of so many bytes and check every one of them."""
    chance, count = np.random.default_rng(0), 64
    options: dict[str, Any] = {"cap": FEATURES, "dtype": "float32", "made_with": {}}
    writer = StoreWriter(
        folder, StoreKey("m", None, "s", "h", "mean"), rows_per_shard=2048, **options
    )
    row, written = 0, 0
    while written < size:
        pooled = np.zeros((2 * count, D_SAE), np.float32)
        for side in pooled:
            side[chance.choice(D_SAE, FEATURES, replace=False)] = 1 + chance.random(FEATURES)
        lengths = np.full(2 * count, 9.0)
        scores = Scores(logps=-lengths, lengths=lengths, pooled=pooled, feature_lengths=lengths)
        writer.add([(row + i).to_bytes(16, "little") for i in range(count)], scores)
        row += count
        written += 2 * count * FEATURES * 6
    writer.close()
    importlib.import_module("fpo_core.io.digests")._known.clear()
    begin, clock = time.process_time(), time.perf_counter()
    store = ReferenceStore.open(folder)
    spent = {"cpu": time.process_time() - begin, "clock": time.perf_counter() - clock}
    bytes_ = sum(path.stat().st_size for path in folder.iterdir())
    return {"bytes": bytes_, "pairs": len(store.index), **spent}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", help="where examples/smollm2 keeps its model")
    parser.add_argument("--iters", type=int, default=60)
    parser.add_argument(
        "--max-rows", type=int, help="of each split; a shorter run hashes more of its time"
    )
    parser.add_argument("--store-bytes", type=int, default=1_000_000_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = of_a_store(args.store_bytes, Path(folder))
    print(json.dumps(store))
    run = of_a_run(args.cache, args.iters, args.max_rows)
    share = run["hashing"] / run["cpu"]
    rounded = {"store": store, "run": run, "share_of_a_run": share}
    write_result(
        "integrity", json.loads(json.dumps(rounded), parse_float=lambda x: round(float(x), 4))
    )
    print(json.dumps(rounded))


if __name__ == "__main__":
    main()
