"""The memory of `fpo sae train` against its forecast, and whether it grows over millions of tokens.

    python -m benchmarks.bench_sae_memory [--tokens 5000000] [--backend mlx]

On the world's model, whose activations pass several times through a buffer that holds a part of
them. Resident memory is read at every report; its medians are compared.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from statistics import median

import fpo
from fpo.world import assets

RESULTS = Path(__file__).parent / "results"


def resident() -> int:
    """Bytes of this process in main memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Forecast, train, compare; write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=5_000_000)
    parser.add_argument("--d-sae", type=int, default=512)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--backend", default="torch")
    args = parser.parse_args()
    seen: list[tuple[int, int]] = []

    def watch(event: fpo.Event) -> None:
        if event.kind == "sae":
            seen.append((event.values["tokens"], resident()))

    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "model": str(assets().model),
            "data": str(assets().pairs),
            "layer": ("2",),
            "d_sae": args.d_sae,
            "k": args.d_sae // 32,
            "batch_tokens": args.batch_tokens,
            "tokens": args.tokens,
            "memory": 4,
            "cache": str(Path(folder) / "cache"),
            "save_every": 400,
            "backend": args.backend,
            "device": "cpu",
            "output": str(Path(folder) / "sae.safetensors"),
        }
        expected = fpo.forecast_sae(**settings).forecast
        trained = fpo.train_sae(**settings, sink=watch)
    quarter = len(seen) // 4
    early, late = (median(size for _, size in seen[i * quarter :][:quarter]) for i in (1, 3))
    result = {
        "backend": args.backend,
        "tokens": args.tokens,
        "d_sae": args.d_sae,
        "batch_tokens": args.batch_tokens,
        "forecast": expected.memory,
        "peak": trained.peak_memory,
        "ratio": trained.peak_memory / expected.memory,
        "last_quarter_of_second": late / early,
        "resident": seen[:: max(1, len(seen) // 20)],
    }
    print(json.dumps(result))
    out = RESULTS / f"sae-memory-{args.backend}.json"
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
