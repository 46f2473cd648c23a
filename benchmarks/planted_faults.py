"""Plant one fault at a time in a copy of the tree: the tests must catch every one.

A fault in the core is looked for by the core's tests and then the backends', a fault in a backend
by the backends' tests. The untouched copy must pass first. Exit status 1 where a fault survives.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.integrity.checks import CHECKS
from benchmarks.record import ROOT, read_result, write_result

CORE = [
    f"tests/core/test_{n}.py"
    for n in (
        "discrepancy",
        "logps",
        "objectives",
        "objective_table",
        "links",
        "own_losses",
        "dense",
        "metrics",
        "packing",
    )
]
BACKENDS = [
    f"tests/backends/test_{n}.py" for n in ("scores", "taps", "gradients", "online", "saving")
]


@dataclass(frozen=True)
class Fault:
    """A change of one line: the only place in `path` that reads `right` comes to read `wrong`."""

    name: str
    path: str
    right: str
    wrong: str
    looked_for_by: tuple[str, ...] = ()
    """Test files; by default those of the core's formulas, the backends', or both."""

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
        if self.looked_for_by:
            return [*self.looked_for_by]
        if self.path.startswith("fpo_core/pairs"):
            return ["tests/core/test_goals.py"]
        return CORE + BACKENDS if self.path.startswith("fpo_core") else BACKENDS


_STEPS = ("tests/core/test_zeroth_order.py",)
_MOVES = ("tests/backends/test_zeroth_order.py",)
_LOZO = "fpo_core/backend/zeroth_order.py"
_DIRECTIONS = "fpo_core/backend/directions.py"
_SLOPE = "fpo_core/loss/finite_difference.py"
ZEROTH_ORDER = (
    ("slope without its 2ε", _SLOPE, "/ (2 * epsilon)", "/ epsilon", _STEPS),
    (
        "slope with the wrong sign",
        _SLOPE,
        "losses[:pairs] - losses[pairs:]",
        "losses[pairs:] - losses[:pairs]",
        _STEPS,
    ),
    (
        "a difference forgets the stop-gradient",
        _SLOPE,
        "sides.mean(1, keepdims=True)",
        "sides",
        _STEPS,
    ),
    ("rank left out of the step", _LOZO, " / self._rank_of(name)", "", _STEPS),
    ("norm without the rank", _LOZO, "/ math.sqrt(self._rank or 1)", "", _STEPS),
    ("momentum starts at cU", _LOZO, "+ (1 - mu) * left", "+ left", _STEPS),
    ("momentum not projected", _LOZO, "(mean @ (old.T @ new) / len(new))", "mean", _STEPS),
    ("projection the other way", _LOZO, "old.T @ new", "new.T @ old", _STEPS),
    (
        "projected a step late",
        _LOZO,
        "self._step % self._interval:",
        "self._step % self._interval != 1:",
        _STEPS,
    ),
    (
        "V drawn in every step",
        _LOZO,
        "number = self._step // self._interval\n        if number",
        "number = self._step\n        if number",
        _STEPS,
    ),
    ("clipping ignored", _LOZO, "min(1.0, max_norm / max(norm, 1e-12))", "1.0", _STEPS),
    ("weights stay perturbed", _LOZO, "-sign * self.epsilon", "0.0", _STEPS),
    ("the way back left out of a step", _LOZO, "-self._at * self.epsilon", "0.0", _STEPS),
    (
        "both normals the cosine",
        _DIRECTIONS,
        "np.sin(angle)",
        "np.cos(angle)",
        ("tests/core/test_directions.py",),
    ),
    (
        "the same numbers in every step",
        _DIRECTIONS,
        "self.number, self.kind]",
        "0, self.kind]",
        ("tests/core/test_directions.py",),
    ),
    (
        "rounded to nearest (torch)",
        "fpo_torch/trainable.py",
        "total = _rounded_stochastically(total, draw)",
        "pass",
        _MOVES,
    ),
    (
        "rounded to nearest (mlx)",
        "fpo_mlx/trainable.py",
        "total.view(mx.uint32) + noise",
        "total.view(mx.uint32)",
        _MOVES,
    ),
)
"""Name, file, right, wrong and the tests that look for it."""


_DEGREES, _WORDS = ("tests/core/test_degrees.py",), ("tests/core/test_keywords.py",)
_OBJECTIVES, _HEAD = "fpo_core/loss/objectives.py", "fpo_core/loss/degrees.py"
_VARIANTS, _RAKE = "fpo_core/train/degrees.py", "fpo_core/pairs/keywords.py"
DEGREES = (
    (
        "degrees of one side alone",
        _OBJECTIVES,
        "chosen(scores.degree) + rejected(scores.degree)",
        "chosen(scores.degree)",
        _DEGREES,
    ),
    ("degrees in the constraint", _OBJECTIVES, '("logps", "degree")', '("logps",)', _DEGREES),
    ("degrees: loss falls with error", _HEAD, "-token_logps", "token_logps", _DEGREES),
    ("degrees: a tie is a hit", _HEAD, "rivals == 1", "rivals > 0", _DEGREES),
    ("degrees: the same in each step", _VARIANTS, "seed, step, row,", "seed, 0, row,", _DEGREES),
    ("degrees: both sides at one level", _VARIANTS, "row, side])", "row, 0])", _DEGREES),
    ("degrees: the end is removed", _VARIANTS, "*again, *ids[size:]", "*again", _DEGREES),
    ("RAKE by degree alone", _RAKE, "[word] / frequency[word]", "[word]", _WORDS),
    ("RAKE: the least first", _RAKE, "reverse=True", "reverse=False", _WORDS),
    ("as many random words as phrases", _RAKE, "order[: len(", "order[: bool(", _WORDS),
)
_SAIL = ("tests/backends/test_sail.py",)
_POOLS = ("tests/backends/test_pools.py",)
ONLINE = (
    (
        "sail: the score term with the other sign",
        "fpo_core/loss/online.py",
        "held**2 - score_term",
        "held**2 + score_term",
        _SAIL,
    ),
    (
        "sail: own labels with the other sign",
        "fpo_core/loss/online.py",
        "-0.5 * w",
        "0.5 * w",
        _SAIL,
    ),
    (
        "sail: own labels twice",
        "fpo_core/loss/online.py",
        "-0.5 * w * held**2",
        "-w * held**2",
        _SAIL,
    ),
    (
        "sail: the chosen sample alone",
        "fpo_core/loss/online.py",
        "chosen(scores.logps) + rejected(scores.logps)",
        "chosen(scores.logps)",
        _SAIL,
    ),
    (
        "sail: gradient through F in the score term",
        "fpo_core/loss/online.py",
        "xp.stop_gradient(f - online.baseline)",
        "(f - online.baseline)",
        _SAIL,
    ),
    (
        "sail: rewarded for being wrong",
        "fpo_core/loss/online.py",
        "xp.where(w * f > -1, f, least)",
        "f",
        _SAIL,
    ),
    (
        "online: answers under another prompt",
        "fpo_core/train/online.py",
        "(prompts[i], cut[i], cut[i + 1])",
        "(prompts[0], cut[i], cut[i + 1])",
        _POOLS,
    ),
    (
        "online: the worse answer chosen",
        "fpo_core/train/online.py",
        "if win < 0.5 else p",
        "if win > 0.5 else p",
        _POOLS,
    ),
    (
        "online: own labels against the policy",
        "fpo_core/train/online.py",
        ">= numpy_ops.log_sigmoid(u)",
        "< numpy_ops.log_sigmoid(u)",
        _POOLS,
    ),
    (
        "online: the policy as its own reference",
        "fpo_core/train/online.py",
        "batch, at_reference=True",
        "batch, at_reference=False",
        _POOLS,
    ),
    (
        "online: reference not swapped with its pair",
        "fpo_core/train/online.py",
        "order[:, flipped] = order[::-1, flipped]",
        "pass",
        _POOLS,
    ),
    (
        "online: the same samples in every pool",
        "fpo_core/train/online.py",
        "step_seed(config.seed, step, 0, _SAMPLES)",
        "step_seed(config.seed, 0, 0, _SAMPLES)",
        _POOLS,
    ),
    (
        "sampling: the number of a sample ignored",
        "fpo_core/backend/draws.py",
        "[seed, number, int.from",
        "[seed, 0, int.from",
        ("tests/core/test_draws.py",),
    ),
    (
        "sampling: a token that cannot come",
        "fpo_core/backend/draws.py",
        "(below <= u",
        "(below < u",
        ("tests/core/test_draws.py",),
    ),
)
"""The same of samples and online training."""


_ENUMERATED, _GUIDED = ("tests/core/test_values.py",), ("tests/backends/test_guided.py",)
_VALUE_LOSS, _RULE = "fpo_core/loss/values.py", "fpo_core/backend/guidance.py"
VALUES = (
    (
        "values: λ weighs no later state less",
        _VALUE_LOSS,
        "float(trace) ** np.maximum(ahead, 0)",
        "float(trace) ** 0",
        _ENUMERATED,
    ),
    (
        "values: λ counts from the state itself",
        _VALUE_LOSS,
        "places[:, None] - places - 1",
        "places[:, None] - places",
        _ENUMERATED,
    ),
    (
        "values: gradient through the targets",
        _VALUE_LOSS,
        "values = xp.stop_gradient(values)",
        "pass",
        _ENUMERATED,
    ),
    (
        "values: the end is guessed too",
        _VALUE_LOSS,
        "inner = state_mask(batch) - last",
        "inner = state_mask(batch)",
        _ENUMERATED,
    ),
    (
        "values: the end of the prompt is no state",
        _VALUE_LOSS,
        "batch.prompt_lengths[:, None] - 1",
        "batch.prompt_lengths[:, None]",
        _ENUMERATED,
    ),
    ("values: away from the reward", _RULE, "there + added", "there - added", _ENUMERATED),
    (
        "values: their mean is left in",
        _RULE,
        "beta * (v - v.sum(-1)[:, None] / v.shape[-1])",
        "beta * v",
        _ENUMERATED,
    ),
    (
        "values: KL the other way round",
        _RULE,
        "for z in (y, x))",
        "for z in (x, y))",
        _ENUMERATED,
    ),
    (
        "values: β over the temperature",
        _RULE,
        "pick(self.xp, y, u, 1.0, self.top_p)",
        "pick(self.xp, y, u, self.temperature, self.top_p)",
        _GUIDED,
    ),
    (
        "values: a candidate at the place before it (torch)",
        "fpo_torch/guided.py",
        "places[:, -1:] + 1",
        "places[:, -1:]",
        _GUIDED,
    ),
    (
        "values: read with the policy's adapter (torch)",
        "fpo_torch/guided.py",
        "with self._weighted():",
        "with torch.no_grad():",
        _GUIDED,
    ),
    (
        "values: read with the policy's adapter (mlx)",
        "fpo_mlx/guided.py",
        "with self._weighted():",
        "with mx.stream(mx.cpu):",
        _GUIDED,
    ),
    (
        "values: candidates stay in the cache (mlx)",
        "fpo_mlx/guided.py",
        "copied = copy.copy(cache)",
        "copied = cache",
        _GUIDED,
    ),
)
"""The same of value functions and of samples under them."""


CHANGES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "fpo_core/loss/terms.py": (
        ("sign of delta", "- self.margin - self.delta", "- self.margin + self.delta"),
        ("sign of the margin", "self.lpd - self.margin", "self.lpd + self.margin"),
    ),
    "fpo_core/loss/objectives.py": (
        ("delta of the other side", "rejected(drift) - drift_chosen", "-drift_chosen"),
        ("stop-gradient dropped", "= xp.stop_gradient(drift_chosen)", "= drift_chosen"),
        ("stop-gradient option ignored", "if config.stop_gradient and not", "if True and not"),
        (
            "tdpo1 with a stop-gradient",
            "config.stop_gradient and not objective.symmetric",
            "config.stop_gradient",
        ),
        (
            "beta missing in delta",
            'config.coefficient("beta") * objective.drift(scores)',
            "objective.drift(scores)",
        ),
        ("margin of simpo missing", 'zero + config.coefficient("gamma")', "zero"),
        ("lengths not normalised", "logps / scores.lengths if", "logps if"),
    ),
    "fpo_core/config/objective_table.py": (
        ("KL of simpo-kl summed", "scores.kl / scores.lengths", "scores.kl"),
    ),
    "fpo_core/loss/links.py": (
        ("smoothing on one side", "(1 - smoothing) * losses", "losses"),
        ("lrml: s and 1 - s swapped", "u / config.coefficient", "-u / config.coefficient"),
        ("hinge without its bound", "xp.relu(1 - terms.logits())", "1 - terms.logits()"),
        ("exponential rises", "xp.exp(-terms.logits())", "xp.exp(terms.logits())"),
        ("aps: tau without its upper bound", "xp.where(tau < most, tau, most)", "tau"),
        (
            "aps: tau without its lower bound",
            "xp.where(tau > least, tau, least)",
            "xp.where(tau > 0, tau, least)",
        ),
        ("aps: a of the wrong entropy", "entropy > math.log(2) - rho", "entropy > rho"),
        (
            "aps: gradient through tau",
            "tau = abs(xp.stop_gradient(terms.logits())) /",
            "tau = abs(terms.logits()) * 1.01 /",
        ),
        ("aps: rho tau left out", '(config.coefficient("aps_rho") - math.log(2)) * tau', "0"),
        ("aps-quadratic: rho counted once", "+ 2 * rho * tau", "+ rho * tau"),
        ("aps-quadratic: linear penalty", "* tau**2 -", "* tau -"),
        ("padll halves the other side", "terms.logits() < 0, 0.5", "terms.logits() > 0, 0.5"),
        ("cell of unequal parts", "+ 0.5 * exponential", "+ 0.6 * exponential"),
        ("pfl by the pair's u", "terms.lpd > 0", "terms.logits() > 0"),
    ),
    "fpo_core/loss/own_losses.py": (
        (
            "asft: lambda on the wrong term",
            'config.coefficient("odds_lambda") * align - chosen(scores.mean_logps)',
            'align - config.coefficient("odds_lambda") * chosen(scores.mean_logps)',
        ),
        (
            "orpo: lambda on the wrong term",
            'config.coefficient("odds_lambda") * ratio - chosen(scores.mean_logps)',
            'ratio - config.coefficient("odds_lambda") * chosen(scores.mean_logps)',
        ),
        ("odds of sums", "m = scores.mean_logps", "m = scores.logps"),
        (
            "asft raises the rejected side",
            "xp.log_sigmoid(-rejected(s))",
            "xp.log_sigmoid(rejected(s))",
        ),
        ("pole left open", "xp.where(m < POLE, m, POLE)", "m"),
    ),
    "fpo_core/pairs/goals.py": (
        ("augmented row not swapped", "        if swap:", "        if False:"),
        ("both rows ask for one goal", "for goal in scores)", "for goal in scores[:1] * 2)"),
    ),
    "fpo_core/train/step0.py": (
        (
            "padll checked at its step",
            'replace(config.only(ObjectiveConfig), link="logistic")',
            "config",
        ),
    ),
    "fpo_core/loss/scores.py": (
        ("mean log-probability is the sum", "self.logps / self.lengths", "self.logps"),
    ),
    "fpo_core/sae/discrepancy.py": (
        ("union of the policy alone", "top_policy | top_reference", "top_policy"),
        ("features that never fired", " & (reference > 0)", ""),
        ("ties all taken", "(tied.cumsum(-1) <= room)", "(tied > 0)"),
        ("signed features by value", "abs(xp.stop_gradient(policy))", "policy"),
        ("D over the union's size", "divisor = size * 0 + k", "divisor = size + 1e-9"),
        (
            "pooling by padded width",
            "mask.sum(1)[..., None]",
            "mask.sum(1)[..., None] * 0 + mask.shape[1]",
        ),
        ("gradient into the reference", "reference = xp.stop_gradient(reference)", "pass"),
    ),
    "fpo_core/data/batches.py": (
        ("prompt in the mask", "(position >= self.prompt_lengths[:, None])", "(position >= 0)"),
        ("padding in the mask", "(position < self.lengths[:, None])", "(position >= 0)"),
        ("last token unscored", "(position < self.lengths", "(position + 1 < self.lengths"),
    ),
    "fpo_core/loss/dense.py": (
        ("untrained tokens pooled", "mask * ~np.isin(labels,", "mask * ~np.isin(labels * 0 - 1,"),
    ),
    "fpo_core/loss/packing.py": (
        (
            "predicted by the row's neighbour",
            "index(position - 1), index(position)",
            "index(position) - 1, index(position)",
        ),
        (
            "positions begin anew with a completion",
            "[np.arange(start, end) for _, start, end in spans]",
            "[np.arange(end - start) for _, start, end in spans]",
        ),
        ("a completion sees what follows", " & (key <= query)", ""),
    ),
    "fpo_core/loss/logps.py": (
        ("ignored labels wrap", "labels * (labels >= 0)", "labels"),
        ("KL the other way", "xp.exp(log_reference)", "-xp.exp(log_policy)"),
    ),
    "fpo_torch/policy.py": (
        (
            "labels shifted (torch)",
            "arange(start - 1, batch.width - 1,",
            "arange(start, batch.width,",
        ),
        ("another layer tapped (torch)", "stack[hook.layer]", "stack[-1]"),
    ),
    "fpo_mlx/policy.py": (
        ("labels shifted (mlx)", "during(slice(start - 1, -1)", "during(slice(start, None)"),
    ),
    "fpo_core/backend/base_policy.py": (
        ("predicting positions pooled", "h[:, start:] for h", "h[:, start - 1 : -1] for h"),
        ("features left out of a step", "features = objective.needs_features", "features = False"),
        (
            "reference not swapped in",
            "swapped(self._reference)",
            "swapped(self._trainable.from_canonical(self.trained()))",
        ),
    ),
    "fpo_torch/optimizer.py": (
        ("gradient kept between steps", "weight.grad = None", "pass"),
        ("adapters' gradient kept", "self._flat.zero_()", "pass"),
    ),
    "fpo_mlx/optimizer.py": (
        ("no bias correction (mlx)", "bias_correction=True", "bias_correction=False"),
        ("clipping ignored (mlx)", "apply_gradients(clipped,", "apply_gradients(self._gradients,"),
    ),
    "fpo_mlx/kernels/mlp.py": (
        (
            "derivative of the gate without its product rule (mlx)",
            "return s + x * s * (1 - s)",
            "return s",
        ),
    ),
    "fpo_mlx/kernels/packed_attention.py": (
        (
            "no gradient from rectangles to the row (mlx)",
            "self._compact(*gradients)",
            "0 * self._compact(*gradients)",
        ),
    ),
    "fpo_mlx/hooks.py": (
        (
            "tap forgotten when a block is repeated (mlx)",
            "capture_all(active, lambda:",
            "capture_all([t for t in active if t.capturing], lambda:",
        ),
        (
            "repeated block keeps half precision (mlx)",
            "                module.update(originals)",
            "                pass",
        ),
    ),
}
"""By file: the name of a fault, the line's right part, and what it becomes."""
FAULTS = [
    Fault(name, path, right, wrong)
    for path, changes in CHANGES.items()
    for name, right, wrong in changes
] + [Fault(*check) for check in (*ZEROTH_ORDER, *DEGREES, *ONLINE, *VALUES, *CHECKS)]


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
    if done.returncode < 0:
        return f"{' '.join(tests)}, ended by signal {-done.returncode}"
    if done.returncode != 0:
        raise SystemExit(f"pytest ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="plant the faults whose name or file contains this")
    parser.add_argument("--checks", action="store_true", help="plant those in checks alone")
    args = parser.parse_args()
    only = args.only or ""
    faults = [f for f in FAULTS if only in f.name + f.path and (f.looked_for_by or not args.checks)]
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name) / "tree"
        tree.mkdir()
        copy_tree(tree)
        broken = run_tests(tree, sorted({test for fault in faults for test in fault.tests()}))
        if broken:
            raise SystemExit(f"{broken} fails without any fault: repair that first")
        rows = [{**asdict(fault), "caught_by": try_fault(tree, fault)} for fault in faults]
    survivors = [row["name"] for row in rows if row["caught_by"] is None]
    print(f"{len(rows) - len(survivors)} of {len(rows)} faults caught; survived: {survivors}")
    save(rows)
    sys.exit(1 if survivors else 0)


def save(rows: list[dict[str, str | None]]) -> None:
    """Write the result; with --only, the rows of other faults stay."""
    earlier = read_result("planted_faults").get("faults", [])
    by_name = {row["name"]: row for row in [*earlier, *rows]}
    faults = [by_name[fault.name] for fault in FAULTS if fault.name in by_name]
    survived = [row["name"] for row in faults if row["caught_by"] is None]
    write_result("planted_faults", {"survived": survived, "faults": faults})


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
