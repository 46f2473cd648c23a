"""What bfloat16 leaves of the constraint's gradient while drift is small, and the floor of D.

A trained adapter is taken at shares t of its way (t·B: t = 0 is the reference), those at which
D in float32 is about --drifts, and all of it. At each, the gradient of the constraint by itself in
bfloat16 is compared with float32's on the same pairs, and so is the preference's. Three references
of the bfloat16 policy were tried to take the floor away:

- stored: the reference pass as it is, in batches of another shape than the step's;
- step: the reference scored by the very path and shape of the step (t = 0, the same batch);
- float32: the reference of a float32 pass.

Run: python -m benchmarks.drift_floor --name NAME --model FOLDER --data FOLDER --sae FILE
     --adapter FOLDER
"""

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pages import fill
from benchmarks.record import ROOT, hardware, read_result, versions, write_result
from fpo.backends import build_policy
from fpo.model_setup import ModelSetup
from fpo_core.adapters.reader import load_adapter
from fpo_core.backend.policy import Policy
from fpo_core.config import DataConfig, ObjectiveConfig, OptimiserConfig, TrainConfig
from fpo_core.data.batches import Batch, collate
from fpo_core.loss.dense import ReferenceBatch
from fpo_core.loss.metrics import ABOVE_FLOOR
from fpo_core.loss.objectives import Part
from fpo_core.loss.scores import rejected
from fpo_core.models.folder import ModelFolder
from fpo_core.train.step0 import floor_of_rounding

PAGE = ROOT / "docs" / "method.md"
BEGIN = "<!-- floor: made by python -m benchmarks.drift_floor -->"
END = "<!-- end of floor -->"
Arrays = dict[str, np.ndarray]


def at_share(weights: Arrays, t: float) -> Arrays:
    """LoRA's product t·B·A: A as it is, so that at 0 the gradient still reaches B."""
    return {name: w * t if name.endswith("lora_B") else w for name, w in weights.items()}


def reference_of(policy: Policy, batches: list[Batch]) -> list[ReferenceBatch]:
    scores = [policy.score(batch) for batch in batches]
    return [ReferenceBatch(s.logps, s.pooled, np.zeros(len(s.logps), np.float32)) for s in scores]


def regrouped(references: list[ReferenceBatch], size: int) -> list[ReferenceBatch]:
    """The references of pairs one by one, as batches of `size`."""
    starts = range(0, len(references), size)
    return [_joined(references[start : start + size]) for start in starts]


def _joined(parts: list[ReferenceBatch]) -> ReferenceBatch:
    def both(name: str) -> np.ndarray:
        arrays = [np.asarray(getattr(part, name)) for part in parts]
        return np.concatenate([a[:1] for a in arrays] + [a[1:] for a in arrays])

    return ReferenceBatch(both("logps"), both("pooled"), both("truncated"))


def gradient(
    policy: Policy,
    batches: list[Batch],
    references: list[ReferenceBatch],
    objective: ObjectiveConfig,
    part: Part,
) -> tuple[np.ndarray, float]:
    """One part's gradient over all batches as a vector, and the mean D of rejected completions."""
    drift = []
    for batch, reference in zip(batches, references, strict=True):
        scores = policy.accumulate(batch, reference, objective, 1 / len(batches), part)
        drift.append(float(rejected(np.asarray(scores.d)).mean()))
    return taken(policy), float(np.mean(drift))


def taken(policy: Policy) -> np.ndarray:
    """The accumulated gradient, which is dropped. A benchmark may look behind the protocol."""
    optimizer: Any = policy._optimizer  # pyright: ignore[reportAttributeAccessIssue]
    if policy.info.backend == "mlx":
        flat = [np.array(g).ravel() for _, g in sorted(optimizer._gradients.items())]
    else:
        weights = sorted(optimizer._weights.items())
        flat = [w.grad.float().cpu().numpy().ravel() for _, w in weights]
    vector = np.concatenate(flat).astype(np.float64)
    policy.drop_gradients()
    return vector


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(x @ y / math.sqrt((x @ x) * (y @ y) or 1.0))


def measured(
    policy: Policy,
    batches: list[Batch],
    references: dict[str, list[ReferenceBatch]],
    objective: ObjectiveConfig,
) -> dict[str, Any]:
    """The constraint's gradient and D against each reference; the preference's against `stored`."""
    of = {n: gradient(policy, batches, r, objective, "constraint") for n, r in references.items()}
    stored = references["stored"]
    return of | {"preference": gradient(policy, batches, stored, objective, "preference")}


def shown(result: dict[str, Any]) -> str:
    """The result as Markdown, for docs/method.md."""
    floor = result["floor"]["bfloat16"]
    lines = [
        "| t | D | D in bfloat16 | by the floor | cosine, stored | step | float32 | preference |"
    ]
    lines.append("|---" * 8 + "|")
    for row in result["rows"]:
        d = row["stored"]["d"]
        cells = [f"{row['t']:.2f}", f"{row['d_float32']:.2g}", f"{d:.2g}", f"{d / floor:.1f}"]
        cells += [f"{row[name]['cosine_constraint']:.2f}" for name in ("stored", "step", "float32")]
        lines.append("| " + " | ".join([*cells, f"{row['cosine_preference']:.3f}"]) + " |")
    return "\n".join(lines)


def options() -> argparse.Namespace:
    """Those of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "data", "sae", "adapter"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--name", required=True, help="of the result, such as smollm2")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--drifts", type=float, nargs="+", default=[3e-4, 1.2e-3, 3e-3])
    return parser.parse_args()


def main() -> None:
    args = options()
    layers = ModelFolder(Path(args.model), args.model).layers
    adapter = load_adapter(Path(args.adapter), layers)
    shape = {"rank": adapter.rank, "scale": adapter.scale, "num_layers": adapter.num_layers}
    names = {name: getattr(args, name) for name in ("model", "data", "backend")}
    rows = {"max_rows": args.pairs, "max_seq_length": 224}
    places = {"sae": (args.sae,), "output": "unused", "dtype": "float32"}
    config = TrainConfig(**names, **shape, **rows, **places, beta=5.0, alpha=5.0)
    setup = ModelSetup(config)
    pairs = setup.load_data(config.only(DataConfig)).train
    starts = range(0, args.pairs, args.batch_size)
    batches = [collate(pairs, range(i, i + args.batch_size)) for i in starts]
    singles = [collate(pairs, [i]) for i in range(args.pairs)]
    shares = [0.0, 1.0]
    exact: dict[float, Any] = {}
    narrow: dict[float, Any] = {}
    kept: list[ReferenceBatch] = []
    floors: dict[str, float] = {}
    for dtype, found in (("float32", exact), ("bfloat16", narrow)):
        model = dataclasses.replace(config, dtype=dtype)
        shaped = setup.adapter_config(model)
        policy = build_policy(args.backend, setup.model.path, model, shaped, setup.features)
        policy.prepare_training(OptimiserConfig())
        weights = policy.trained() | adapter.weights
        policy.load_trained(at_share(weights, 0.0))
        references = {"stored": regrouped(reference_of(policy, singles), args.batch_size)}
        if dtype == "float32":
            kept = references["stored"]
            policy.load_trained(weights)
            exact[1.0] = measured(policy, batches, references, config)
            whole = exact[1.0]["stored"][1]
            shares = [0.0, *(math.sqrt(d / whole) for d in args.drifts if d < whole), 1.0]
        else:
            references |= {"step": reference_of(policy, batches), "float32": kept}
        policy.load_trained(at_share(weights, 0.0))
        pairs_of = zip(batches, references["stored"], strict=True)
        floors[dtype] = floor_of_rounding(policy, pairs_of, config)
        print(dtype, "floor", floors[dtype], flush=True)
        for t in (t for t in shares if t not in found):
            policy.load_trained(at_share(weights, t))
            found[t] = measured(policy, batches, references, config)
            print(dtype, t, {n: v[1] for n, v in found[t].items()}, flush=True)
        del policy
    result = {
        "backend": args.backend,
        "pairs": args.pairs,
        "above_floor": ABOVE_FLOOR,
        "floor": floors,
        "rows": [_row(t, exact[t], narrow[t]) for t in shares],
        "versions": versions(),
        "hardware": hardware(),
    }
    write_result(f"drift_floor-{args.backend}-{args.name}", result)
    print(json.dumps(result["rows"], indent=2))
    fill(PAGE, BEGIN, END, shown(read_result("drift_floor-torch-smollm2")))


def _row(t: float, exact: dict[str, Any], narrow: dict[str, Any]) -> dict[str, Any]:
    constraint, preference = exact["stored"][0], exact["preference"][0]
    share = np.linalg.norm(constraint) / np.linalg.norm(preference)
    row = {"t": t, "d_float32": exact["stored"][1], "share_float32": float(share)}
    row["cosine_preference"] = cosine(narrow["preference"][0], preference)
    for name in ("stored", "step", "float32"):
        of = cosine(narrow[name][0], constraint)
        row[name] = {"d": narrow[name][1], "cosine_constraint": of}
    return row


if __name__ == "__main__":
    main()
