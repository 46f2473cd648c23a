"""Federated alignment in the world: clients that differ in the form of their replies.

800 pairs of three forms (JSON, French, plain English) are divided among four clients by a Dirichlet
draw over forms. Every arm takes the same rounds and local steps, and starts alike; those that
exchange all blocks send the same bytes. Measured: accuracy on held-out pairs of each form and of
the pairs together, the worst client's on its own held-out pairs, the oracle on samples, bytes.

    python benchmarks/federated_world.py --seed 1 --out benchmarks/results/federated.json

Needs Flower (docs/federated.md). A seed at a time: results are added to the file.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import fpo
from fpo.model_setup import ModelSetup
from fpo.world import assets, score
from fpo_core.backend.policy import Sampling
from fpo_core.config import TrainConfig
from fpo_core.data.batches import collate

ARMS: dict[str, dict[str, Any]] = {
    "fedavg": {"strategy": "fedavg"},
    "fedavgm": {"strategy": "fedavgm"},
    "fedpeptao": {"strategy": "fedpeptao"},
    "fedpeptao, half by score": {"strategy": "fedpeptao", "layers": "score"},
    "fedpeptao, half at random": {"strategy": "fedpeptao", "layers": "random"},
}
FORMS = ("json", "french", "plain")
SETTINGS = {
    "objective": "dpo-norm",
    "beta": 70.0,
    "rank": 8,
    "scale": 1.0,
    "learning_rate": 3e-3,
    "schedule": "constant",
    "warmup": 0.0,
    "batch_size": 8,
    "max_seq_length": 64,
    "tokens_per_batch": 4096,
    "val_pairs": 60,
    "backend": "torch",
    "dtype": "float32",
}
CLIENTS, ROUNDS, LOCAL_ITERS, ALPHA, PROMPTS = 4, 4, 4, 0.5, 40


def form(row: dict[str, Any]) -> str:
    """What a pair's replies look like, by the oracle."""
    judged = score(row["prompt"][0]["content"], row["chosen"][0]["content"])
    return "json" if judged.format == 1 else "french" if judged.language > 0.5 else "plain"


def with_forms(source: Path, target: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["form"] = form(row)
    target.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return rows


def measured(folder: Path, rows: list[dict[str, Any]], adapter: Path, seed: int) -> dict[str, Any]:
    """Accuracy of an adapter on held-out pairs of each form and on all; the oracle on samples."""
    settings = {key: SETTINGS[key] for key in ("objective", "backend", "dtype", "max_seq_length")}
    data = {"data": str(folder / "valid.jsonl"), "cache": str(folder / "cache")}
    config = TrainConfig(
        model=str(assets().model), output="none", adapter=str(adapter), **data, **settings
    )
    setup = ModelSetup(config)
    policy = setup.policy(config)
    pairs = setup.load_data(config).train
    scores = policy.score(collate(pairs, range(len(pairs))))
    assert scores.lengths is not None
    chosen, rejected = np.split(np.asarray(scores.logps) / np.asarray(scores.lengths), 2)
    right = chosen > rejected
    forms = np.array([rows[int(row)]["form"] for row in pairs.source_rows() - 1])
    accuracies = {name: float(right[forms == name].mean()) for name in FORMS}
    ids = [pairs[number].prompt for number in range(PROMPTS)]
    sampled = policy.generate(ids, Sampling(48, 1.0, 1.0, seed, setup.stop))
    decoded = [setup.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in sampled]
    prompts = [rows[int(row)]["prompt"][0]["content"] for row in pairs.source_rows() - 1]
    judged = [score(prompt, text).preferred for prompt, text in zip(prompts, decoded, strict=False)]
    return {
        "forms": accuracies | {"all": float(right.mean())},
        "oracle": float(np.mean(judged)),
    }


def run(arm: str, seed: int, folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    output = folder / arm.replace(" ", "-").replace(",", "")
    result = fpo.federate(
        model=assets().model,
        data=folder / "train.jsonl",
        output=output,
        reference=folder / "reference",
        cache=folder / "cache",
        valid_fraction=0.2,
        clients=CLIENTS,
        rounds=ROUNDS,
        local_iters=LOCAL_ITERS,
        partition=f"dirichlet:{ALPHA}",
        by="form",
        seed=seed,
        **SETTINGS,
        **ARMS[arm],
    )
    values = {
        "arm": arm,
        "seed": seed,
        "bytes": result.bytes_sent,
        "blocks": result.blocks,
        "mixture": result.mixture,
        "worst_client": result.clients[result.worst]["accuracy"],
        **measured(folder, rows, output / "adapter", seed),
        "loss": [facts["loss"] for facts in result.rounds],
    }
    shutil.rmtree(output)
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with_forms(assets().train, folder / "train.jsonl")
        rows = with_forms(assets().valid, folder / "valid.jsonl")
        for arm in arguments.arms:
            known = json.loads(arguments.out.read_text()) if arguments.out.is_file() else []
            if any(row["arm"] == arm and row["seed"] == arguments.seed for row in known):
                continue
            known.append(run(arm, arguments.seed, folder, rows))
            arguments.out.write_text(json.dumps(known, indent=1) + "\n")
            print(known[-1], flush=True)


if __name__ == "__main__":
    main()
