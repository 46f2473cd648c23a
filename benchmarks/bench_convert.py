"""How fast and how lean conversion is, how exact, and what 10,000 mutated files do to it.

    python benchmarks/bench_convert.py [--mutations 10000] [--out benchmarks/results/convert.json]

Each round measures `cp`, the pass and conversion in turn, each from a synced disk to a new file,
once others leave the machine idle or --patience seconds have passed. `others` is the share of the
machine that they took meanwhile; timings mean little where it is large.

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
from collections.abc import Callable
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


def copy_and_look(source: Path, target: Path) -> dict:
    """Seconds of `cp`, and of looking for numbers that are not finite."""
    start = time.perf_counter()
    subprocess.run(["cp", source, target], check=True)
    copied = time.perf_counter()
    data = np.memmap(source, np.float32, offset=source.stat().st_size % 4, mode="r")
    for begin in range(0, len(data), 1 << 21):
        np.isfinite(data[begin : begin + (1 << 21)]).all()
    end = time.perf_counter()
    return {"seconds": end - start, "cp": copied - start, "finite": end - copied}


def converted(folder: Path, target: Path, verify: bool) -> dict:
    """What `child` found in a process of its own."""
    command = [sys.executable, __file__, "--child", folder, target, str(int(verify))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def busy() -> tuple[float, float]:
    """Processor seconds that the machine and this process's family have used; 0 off Linux."""
    if not Path("/proc/stat").exists():
        return 0.0, 0.0
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:8]]
    used = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return used, sum(r.ru_utime + r.ru_stime for r in map(resource.getrusage, kinds))


def others_since(start: float, before: tuple[float, float]) -> float:
    """Share of the machine that others took since then."""
    all_used, own = (now - then for now, then in zip(busy(), before, strict=True))
    return max(0.0, all_used - own) / ((time.perf_counter() - start) * (os.cpu_count() or 1))


def alone(action: Callable[[], dict], target: Path, patience: float) -> dict:
    """Run with a synced disk and, where that can be had in time, an idle machine."""
    target.unlink(missing_ok=True)
    os.sync()
    limit = time.perf_counter() + patience
    while time.perf_counter() < limit:
        start, before = time.perf_counter(), busy()
        time.sleep(0.3)
        if others_since(start, before) < 0.03:
            break
    start, before = time.perf_counter(), busy()
    result = action()
    return result | {"others": others_since(start, before)}


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


def measure(work: Path, architecture: str, rounds: int, patience: float) -> dict:
    folder, target = work / architecture, work / "out"
    make(folder, architecture)
    weights = folder / "sae_weights.safetensors"
    actions = {
        "cp_and_pass": lambda: copy_and_look(weights, target),
        "verified": lambda: converted(folder, target, True),
        "unverified": lambda: converted(folder, target, False),
    }
    runs: dict[str, list[dict]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            runs[name].append(alone(action, target, patience))
    base = [run["seconds"] for run in runs["cp_and_pass"]]
    row: dict = {"bytes": weights.stat().st_size, "rounds": rounds}
    row["others_by_round"] = {
        name: [round(run["others"], 2) for run in found] for name, found in runs.items()
    }
    row["cp_and_pass"] = {
        key: {"min": min(values), "median": median(values)}
        for key in ("seconds", "cp", "finite")
        for values in [[run[key] for run in runs["cp_and_pass"]]]
    }
    for name in ("verified", "unverified"):
        row[name] = summary(runs[name], base)
    shutil.rmtree(folder)
    return row


def summary(runs: list[dict], base: list[float]) -> dict:
    """Times beside those of `cp` and the pass: least by least, median by median, round by round."""
    seconds = [run["seconds"] for run in runs]
    ratios = [mine / theirs for mine, theirs in zip(seconds, base, strict=True)]
    return {
        "seconds": {"min": min(seconds), "median": median(seconds)},
        "cpu_seconds": min(run["cpu_seconds"] for run in runs),
        "times_cp_plus_pass": {
            "of_minima": min(seconds) / min(base),
            "of_medians": median(seconds) / median(base),
            "by_round": [round(ratio, 2) for ratio in ratios],
        },
        "peak_over_largest_tensor": max(run["peak_bytes"] for run in runs) / (D_IN * D_SAE * 4),
        "relative_difference": runs[0]["relative_difference"],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--patience", type=float, default=10)
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
            results[architecture] = measure(Path(name), architecture, args.rounds, args.patience)
        start = time.perf_counter()
        outcomes = Fuzzer(Path(name) / "fuzz", seed=1).run(args.mutations)
        results["mutations"] = {"count": args.mutations, "outcomes": outcomes}
        results["mutations"]["seconds"] = time.perf_counter() - start
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
