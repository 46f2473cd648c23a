"""How fast and how lean conversion is, how exact, and what 10,000 mutated files do to it.

    python benchmarks/bench_convert.py [--mutations 10000] [--out benchmarks/results/convert.json]

Timings mean little on a busy machine: `load` above `cpus` says that it was one; processor seconds
are beside wall-clock ones.

Bars: seconds ≤ 3 × (cp + one finiteness pass), peak memory ≤ 1.3 × the largest tensor above the
interpreter's own, every mutated file refused or equal.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
KINDS = {
    "jumprelu": {},
    "topk": {"k": 64, "rescale_acts_by_decoder_norm": True},
}


def make(folder: Path, architecture: str) -> None:
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


def copy_seconds(source: Path, target: Path) -> tuple[float, float]:
    """Wall-clock and processor seconds of `cp`."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(["cp", source, target], check=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def finite_seconds(path: Path) -> tuple[float, float]:
    """Wall-clock and processor seconds of looking for numbers that are not finite."""
    start, cpu = time.perf_counter(), time.process_time()
    data = np.memmap(path, np.float32, offset=path.stat().st_size % 4, mode="r")
    for begin in range(0, len(data), 1 << 21):
        np.isfinite(data[begin : begin + (1 << 21)]).all()
    return time.perf_counter() - start, time.process_time() - cpu


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
    start, cpu = time.perf_counter(), time.process_time()
    report = convert_sae(source, target, verify=verify)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    result = {"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak_memory() - before}
    print(json.dumps(result | {"relative_difference": report.relative_difference}))


def least(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    return min(wall for wall, _ in pairs), min(cpu for _, cpu in pairs)


def measure(work: Path, architecture: str, rounds: int) -> dict:
    folder = work / architecture
    make(folder, architecture)
    weights, target = folder / "sae_weights.safetensors", work / "out.safetensors"
    copies, passes, runs = [], [], {True: [], False: []}
    for _ in range(rounds):
        copies.append(copy_seconds(weights, work / "copy"))
        passes.append(finite_seconds(weights))
        for verify, results in runs.items():
            command = [sys.executable, __file__, "--child", folder, target, str(int(verify))]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results.append(json.loads(done.stdout))
    (copy_s, copy_cpu), (pass_s, pass_cpu) = map(least, (copies, passes))
    row = {"bytes": weights.stat().st_size, "cp_s": copy_s, "cp_cpu_s": copy_cpu}
    row |= {"finite_s": pass_s, "finite_cpu_s": pass_cpu}
    for verify, name in ((True, "verified"), (False, "unverified")):
        best = min(runs[verify], key=lambda r: r["seconds"])
        row[name] = {
            "seconds": best["seconds"],
            "cpu_seconds": min(r["cpu_seconds"] for r in runs[verify]),
            "times_cp_plus_pass": best["seconds"] / (copy_s + pass_s),
            "peak_over_largest_tensor": max(r["peak_bytes"] for r in runs[verify])
            / (D_IN * D_SAE * 4),
            "relative_difference": best["relative_difference"],
        }
    shutil.rmtree(folder)
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
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
        start = time.perf_counter()
        outcomes = Fuzzer(Path(name) / "fuzz", seed=1).run(args.mutations)
        results["mutations"] = {"count": args.mutations, "outcomes": outcomes}
        results["mutations"]["seconds"] = time.perf_counter() - start
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
