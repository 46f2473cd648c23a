"""What bfloat16 leaves of the constraint's gradient while drift is small, and the floor of D.

An adapter of SmolLM2 is taken at shares t of its way (t·B: t = 0 is the reference). At each, the
gradients of the constraint and of the preference by themselves, in bfloat16 and in float32 on
the same pairs, are compared: their cosine, their share, and D. Three ways were tried to take the
floor away, each a reference for the bfloat16 policy:

- stored: the reference pass as it is, in batches of another shape than the step's;
- step: the reference scored by the very path and shape of the step (t = 0, the same batch);
- float32: the reference of a float32 pass.

Run: python -m benchmarks.drift_floor --model FOLDER --data FOLDER --sae FILE --adapter FOLDER
     [--backend torch] [--shares 0 0.05 0.15 0.4 1]
"""

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import hardware, versions, write_result
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "data", "sae", "adapter"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.05, 0.15, 0.4, 1.0])
    args = parser.parse_args()
    folder = Path(args.adapter)
    adapter = load_adapter(folder, 30)
    shape = {"num_layers": 12, "rank": adapter.rank, "scale": adapter.scale}
    names = {name: getattr(args, name) for name in ("model", "data", "backend")}
    rows = {"max_rows": args.pairs, "max_seq_length": 224}
    places = {"sae": (args.sae,), "output": "unused", "dtype": "float32"}
    config = TrainConfig(**names, **shape, **rows, **places, beta=5.0, alpha=5.0)
    setup = ModelSetup(config)
    pairs = setup.load_data(config.only(DataConfig)).train
    batches = [
        collate(pairs, range(i, i + args.batch_size)) for i in range(0, args.pairs, args.batch_size)
    ]
    singles = [collate(pairs, [i]) for i in range(args.pairs)]
    found: dict[str, dict[str, Any]] = {}
    for dtype in ("float32", "bfloat16"):
        model = dataclasses.replace(config, dtype=dtype)
        policy = build_policy(
            args.backend, setup.model.path, model, setup.adapter_config(model), setup.features
        )
        policy.prepare_training(OptimiserConfig())
        weights = policy.trained() | adapter.weights
        policy.load_trained(at_share(weights, 0.0))
        stored = regrouped(reference_of(policy, singles), args.batch_size)
        references = {"stored": stored, "step": reference_of(policy, batches)}
        if dtype == "bfloat16":
            references["float32"] = found["float32"]["references"]["stored"]
        found[dtype] = {"references": references, "shares": {}}
        for t in args.shares:
            policy.load_trained(at_share(weights, t))
            found[dtype]["shares"][t] = {
                name: {
                    p: gradient(policy, batches, r, config, p) for p in ("constraint", "preference")
                }
                for name, r in references.items()
            }
            print(
                dtype,
                t,
                {n: v["constraint"][1] for n, v in found[dtype]["shares"][t].items()},
                flush=True,
            )
        del policy
    rows = [_row(t, found) for t in args.shares]
    result = {
        "backend": args.backend,
        "pairs": args.pairs,
        "above_floor": ABOVE_FLOOR,
        "versions": versions(),
        "hardware": hardware(),
        "rows": rows,
    }
    write_result(f"drift_floor-{args.backend}", result)
    print(json.dumps(rows, indent=2))


def _row(t: float, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    exact = found["float32"]["shares"][t]["stored"]
    row: dict[str, Any] = {"t": t, "d_float32": exact["constraint"][1]}
    norms = [np.linalg.norm(exact[part][0]) for part in ("constraint", "preference")]
    row["share_float32"] = float(norms[0] / norms[1])
    for name, of_part in found["bfloat16"]["shares"][t].items():
        row[name] = {
            "d": of_part["constraint"][1],
            "cosine_constraint": cosine(of_part["constraint"][0], exact["constraint"][0]),
            "cosine_preference": cosine(of_part["preference"][0], exact["preference"][0]),
        }
    return row


if __name__ == "__main__":
    main()
