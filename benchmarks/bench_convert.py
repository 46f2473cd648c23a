"""How lean and exact conversion is, how long it takes, and what 10,000 mutated files do to it.

    python benchmarks/bench_convert.py [--mutations 10000] [--out benchmarks/results/convert.json]

Bars: peak memory ≤ 1.3 × the largest tensor above the interpreter's own; every mutated file refused
or equal. Times are reported beside those of `cp`.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from safetensors.numpy import save_file

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "convert")]
D_IN, D_SAE = 2304, 16384
ABOUT = {
    "sae_lens_version": "6.54.12",
    "model_name": "synthetic",
    "hook_name": "blocks.12.hook_resid_post",
}
# topk's encoder takes the decoder's norms: one more pass over W_dec.
KINDS = {"jumprelu": {}, "topk": {"k": 64, "rescale_acts_by_decoder_norm": True}}


def make(folder: Path, architecture: str) -> Path:
    rng = np.random.default_rng(0)
    tensors = {
        "W_enc": rng.normal(size=(D_IN, D_SAE)).astype(np.float32) / 48,
        "W_dec": rng.normal(size=(D_SAE, D_IN)).astype(np.float32) / 48,
        "b_enc": rng.normal(size=D_SAE).astype(np.float32),
        "b_dec": rng.normal(size=D_IN).astype(np.float32),
    }
    if architecture == "jumprelu":
        tensors["threshold"] = np.full(D_SAE, 1.5, np.float32)
    folder.mkdir()
    save_file(tensors, folder / "sae_weights.safetensors")
    cfg = {"architecture": architecture, "d_in": D_IN, "d_sae": D_SAE, "dtype": "float32"}
    cfg |= {"apply_b_dec_to_input": True, "normalize_activations": "none", "metadata": ABOUT}
    (folder / "cfg.json").write_text(json.dumps(cfg | KINDS[architecture]))
    return folder / "sae_weights.safetensors"


def copy(source: Path, target: Path) -> dict:
    """Seconds of `cp`, to a synced disk as conversion writes."""
    start = time.perf_counter()
    subprocess.run(["cp", source, target], check=True)
    subprocess.run(["sync", target], check=True)
    return {"seconds": time.perf_counter() - start}


def converted(folder: Path, target: Path, verify: bool) -> dict:
    """What `child` measures in a process of its own."""
    command = [sys.executable, __file__, "--child", folder, target, str(int(verify))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def peak_memory() -> int:
    """Most resident bytes so far; Linux's rusage would count the parent's too."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(li for li in status.read_text().splitlines() if li.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def child(source: str, target: str, verify: bool) -> None:
    """Convert in this process and print seconds and peak memory above what importing took."""
    from fpo_convert.sae import convert_sae

    before = peak_memory()
    report = convert_sae(source, target, verify=verify)
    result = {"seconds": report.seconds, "peak_bytes": peak_memory() - before}
    print(json.dumps(result | {"relative_difference": report.relative_difference}))


def measure(work: Path, architecture: str, rounds: int) -> dict:
    """Medians over rounds that run each action once."""
    folder, target = work / architecture, work / "out"
    weights = make(folder, architecture)
    actions = {
        "cp": lambda: copy(weights, target),
        "verified": lambda: converted(folder, target, True),
        "unverified": lambda: converted(folder, target, False),
    }
    runs: dict[str, list[dict]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            target.unlink(missing_ok=True)
            runs[name].append(action())
    row = {"bytes": weights.stat().st_size, "rounds": rounds}
    row |= {f"{name}_seconds": median(r["seconds"] for r in found) for name, found in runs.items()}
    peak = max(run["peak_bytes"] for name in ("verified", "unverified") for run in runs[name])
    row["peak_over_largest_tensor"] = peak / (D_IN * D_SAE * 4)
    row["relative_difference"] = runs["verified"][0]["relative_difference"]
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/convert.json")
    parser.add_argument("--child", nargs=3)
    args = parser.parse_args()
    if args.child:
        child(args.child[0], args.child[1], args.child[2] == "1")
        return
    from tests.convert.mutations import Fuzzer

    results: dict = {"d_in": D_IN, "d_sae": D_SAE, "python": platform.python_version()}
    results |= {"numpy": np.__version__, "cpus": os.cpu_count(), "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as name:
        for architecture in KINDS:
            results[architecture] = measure(Path(name), architecture, args.rounds)
        outcomes = Fuzzer(Path(name) / "fuzz", seed=1).run(args.mutations)
        results["mutations"] = {"count": args.mutations, "outcomes": outcomes}
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
