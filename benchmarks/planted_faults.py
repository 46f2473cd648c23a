"""Plant one fault at a time in a copy of the tree: the tests must catch every one.

A fault in the core is looked for by the core's tests and then the backends', a fault in a backend
by the backends' tests. The untouched copy must pass first. Exit status 1 where a fault survives.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "planted_faults.json"
CORE = [
    f"tests/core/test_{n}.py"
    for n in ("features", "logps", "objectives", "objective_table", "dense", "metrics", "packing")
]
BACKENDS = [
    f"tests/backends/test_{n}.py" for n in ("scores", "taps", "gradients", "online", "saving")
]
PACKAGES = ("numpy", "torch", "mlx", "transformers", "peft", "pytest", "hypothesis")


@dataclass(frozen=True)
class Fault:
    """A change of one line: the only place in `path` that reads `right` comes to read `wrong`."""

    name: str
    path: str
    right: str
    wrong: str

    def plant(self, tree: Path) -> None:
        """Change the file; SystemExit where the code has moved on and this no longer fits."""
        file = tree / self.path
        text = file.read_text(encoding="utf-8")
        if text.count(self.right) != 1:
            raise SystemExit(
                f"{self.name}: {self.path} reads {self.right!r} {text.count(self.right)} times, "
                "expected once: rewrite this fault"
            )
        file.write_text(text.replace(self.right, self.wrong), encoding="utf-8")

    def tests(self) -> list[str]:
        """The test files that look for it."""
        return CORE + BACKENDS if self.path.startswith("fpo_core") else BACKENDS


TABLE, LINKS = "fpo_core/config/objective_table.py", "fpo_core/loss/links.py"
OBJECTIVES, FEATURES = "fpo_core/loss/objectives.py", "fpo_core/sae/discrepancy.py"
LOGPS, SCORING, SCORES = (
    "fpo_core/loss/logps.py",
    "fpo_core/loss/dense.py",
    "fpo_core/loss/scores.py",
)
PACKING = "fpo_core/loss/packing.py"
BATCHES, TORCH, MLX = "fpo_core/data/batches.py", "fpo_torch/policy.py", "fpo_mlx/policy.py"
POLICY = "fpo_core/backend/base_policy.py"

FAULTS = [
    Fault("sign of delta", OBJECTIVES, "- self.margin - self.delta", "- self.margin + self.delta"),
    Fault("delta of the other side", OBJECTIVES, "rejected(drift) - drift_chosen", "-drift_chosen"),
    Fault("sign of the margin", OBJECTIVES, "self.lpd - self.margin", "self.lpd + self.margin"),
    Fault(
        "stop-gradient dropped", OBJECTIVES, "= xp.stop_gradient(drift_chosen)", "= drift_chosen"
    ),
    Fault(
        "stop-gradient option ignored",
        OBJECTIVES,
        "if config.stop_gradient and not",
        "if True and not",
    ),
    Fault(
        "tdpo1 with a stop-gradient",
        OBJECTIVES,
        "config.stop_gradient and not objective.symmetric",
        "config.stop_gradient",
    ),
    Fault(
        "beta missing in delta",
        OBJECTIVES,
        'config.coefficient("beta") * objective.drift(scores)',
        "objective.drift(scores)",
    ),
    Fault("margin of simpo missing", OBJECTIVES, 'zero + config.coefficient("gamma")', "zero"),
    Fault("KL of simpo-kl summed", TABLE, "scores.kl / scores.lengths", "scores.kl"),
    Fault(
        "smoothing on one side",
        LINKS,
        "(1 - smoothing) * link(xp, u, config)",
        "link(xp, u, config)",
    ),
    Fault("lengths not normalised", OBJECTIVES, "logps / scores.lengths if", "logps if"),
    Fault("mean log-probability is the sum", SCORES, "self.logps / self.lengths", "self.logps"),
    Fault("union of the policy alone", FEATURES, "top_policy | top_reference", "top_policy"),
    Fault("features that never fired", FEATURES, " & (reference > 0)", ""),
    Fault("ties all taken", FEATURES, "(tied.cumsum(-1) <= room)", "(tied > 0)"),
    Fault("signed features by value", FEATURES, "abs(xp.stop_gradient(policy))", "policy"),
    Fault("D over the union's size", FEATURES, ".sum(-1) / k", ".sum(-1) / (size + 1e-9)"),
    Fault(
        "pooling by padded width",
        FEATURES,
        "mask.sum(1)[..., None]",
        "mask.sum(1)[..., None] * 0 + mask.shape[1]",
    ),
    Fault(
        "gradient into the reference", FEATURES, "reference = xp.stop_gradient(reference)", "pass"
    ),
    Fault(
        "prompt in the mask",
        BATCHES,
        "(position >= self.prompt_lengths[:, None])",
        "(position >= 0)",
    ),
    Fault("padding in the mask", BATCHES, "(position < self.lengths[:, None])", "(position >= 0)"),
    Fault(
        "last token unscored", BATCHES, "(position < self.lengths", "(position + 1 < self.lengths"
    ),
    Fault(
        "untrained tokens pooled",
        SCORING,
        "mask * ~np.isin(labels,",
        "mask * ~np.isin(labels * 0 - 1,",
    ),
    Fault(
        "predicted by the row's neighbour",
        PACKING,
        "index(position - 1), index(position)",
        "index(position) - 1, index(position)",
    ),
    Fault(
        "positions begin anew with a completion",
        PACKING,
        "[np.arange(start, end) for _, start, end in spans]",
        "[np.arange(end - start) for _, start, end in spans]",
    ),
    Fault("a completion sees what follows", PACKING, " & (key <= query)", ""),
    Fault("ignored labels wrap", LOGPS, "labels * (labels >= 0)", "labels"),
    Fault("KL the other way", LOGPS, "xp.exp(log_reference)", "-xp.exp(log_policy)"),
    Fault(
        "labels shifted (torch)",
        TORCH,
        "arange(start - 1, batch.width - 1,",
        "arange(start, batch.width,",
    ),
    Fault("labels shifted (mlx)", MLX, "during(slice(start - 1, -1)", "during(slice(start, None)"),
    Fault(
        "predicting positions pooled", POLICY, "h[:, start:] for h", "h[:, start - 1 : -1] for h"
    ),
    Fault("features left out of a step", POLICY, "or reads_d(objective)", "or False"),
    Fault(
        "reference not swapped in",
        POLICY,
        "swapped(self._reference)",
        "swapped(self._trainable.from_canonical(self.trained()))",
    ),
    Fault("another layer tapped (torch)", TORCH, "stack[hook.layer]", "stack[-1]"),
    Fault("gradient kept between steps", "fpo_torch/optimizer.py", "weight.grad = None", "pass"),
    Fault("adapters' gradient kept", "fpo_torch/optimizer.py", "self._flat.zero_()", "pass"),
    Fault(
        "no bias correction (mlx)",
        "fpo_mlx/optimizer.py",
        "bias_correction=True",
        "bias_correction=False",
    ),
    Fault(
        "clipping ignored (mlx)",
        "fpo_mlx/optimizer.py",
        "apply_gradients(clipped,",
        "apply_gradients(self._gradients,",
    ),
    Fault(
        "derivative of the gate without its product rule (mlx)",
        "fpo_mlx/kernels/mlp.py",
        "return s + x * s * (1 - s)",
        "return s",
    ),
    Fault(
        "no gradient from rectangles to the row (mlx)",
        "fpo_mlx/kernels/packed_attention.py",
        "self._compact(*gradients)",
        "0 * self._compact(*gradients)",
    ),
    Fault(
        "tap forgotten when a block is repeated (mlx)",
        "fpo_mlx/hooks.py",
        "capture_all(active, lambda:",
        "capture_all([t for t in active if t.capturing], lambda:",
    ),
    Fault(
        "repeated block keeps half precision (mlx)",
        "fpo_mlx/hooks.py",
        "                module.update(originals)",
        "                pass",
    ),
]


def copy_tree(target: Path) -> None:
    """The sources, the tests and the quickstart's model, without golden files and caches."""
    ignore = shutil.ignore_patterns(".*", "__pycache__", "golden", "results")
    for name in ("fpo", "fpo_core", "fpo_mlx", "fpo_torch", "convert", "cli", "tests"):
        shutil.copytree(ROOT / name, target / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", target)


def run_tests(tree: Path, tests: list[str]) -> str | None:
    """The first test that fails in the tree; None where all pass."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command + tests, cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if done.returncode == 1 and failed:
        return failed[1]
    if done.returncode != 0:
        raise SystemExit(f"pytest ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="plant the faults whose name contains this")
    only = parser.parse_args().only
    faults = [fault for fault in FAULTS if only is None or only in fault.name]
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name) / "tree"
        tree.mkdir()
        copy_tree(tree)
        broken = run_tests(tree, CORE + BACKENDS)
        if broken:
            raise SystemExit(f"{broken} fails without any fault: repair that first")
        rows = [{**asdict(fault), "caught_by": try_fault(tree, fault)} for fault in faults]
    survivors = [row["name"] for row in rows if row["caught_by"] is None]
    print(f"{len(rows) - len(survivors)} of {len(rows)} faults caught; survived: {survivors}")
    save(rows)
    sys.exit(1 if survivors else 0)


def save(rows: list[dict[str, str | None]]) -> None:
    """Write the result; with --only, earlier rows of the other faults are kept."""
    found = {row["name"]: row for row in rows}
    if RESULT.exists():
        earlier = json.loads(RESULT.read_text(encoding="utf-8"))["faults"]
        found = {row["name"]: row for row in earlier} | found
    kept = [found[fault.name] for fault in FAULTS if fault.name in found]
    result = {
        "command": "python benchmarks/planted_faults.py",
        "survived": [row["name"] for row in kept if row["caught_by"] is None],
        "faults": kept,
        "versions": {n: version(n) for n in PACKAGES} | {"python": platform.python_version()},
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def try_fault(tree: Path, fault: Fault) -> str | None:
    """Plant, test, repair; the test that caught it."""
    file = tree / fault.path
    right = file.read_bytes()
    fault.plant(tree)
    try:
        caught = run_tests(tree, fault.tests())
    finally:
        file.write_bytes(right)
    print(f"{fault.name}: {caught or 'SURVIVED'}", flush=True)
    return caught


if __name__ == "__main__":
    main()
