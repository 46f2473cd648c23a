"""Federated alignment in the world: clients that differ in the form of their replies.

800 pairs of three forms (JSON, French, plain English) are divided among four clients by a Dirichlet
draw over forms. Every arm takes the same rounds and local steps, and starts alike; those that
exchange all blocks send the same bytes. Measured: accuracy on held-out pairs of each form and of
the pairs together, and of each client on its own; the oracle on samples for the same prompts, with
the server's adapter, and with the one that each client ends with; bytes.

    python benchmarks/federated_world.py --seed 1 --out benchmarks/results/federated.json

Needs Flower (docs/federated.md). A seed at a time: results are added to the file.
"""

import argparse
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import fpo
from fpo.federation.workflow import client_settings
from fpo.model_setup import ModelSetup
from fpo.world import assets, score
from fpo_core.adapters.reader import load_adapter
from fpo_core.backend.policy import Sampling
from fpo_core.config import TrainConfig
from fpo_core.config.federated import FederateConfig
from fpo_core.data.batches import collate
from fpo_core.data.token_store import TokenisedPairs

Rows = list[dict[str, Any]]

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
CLIENTS, ROUNDS, LOCAL_ITERS, ALPHA = 4, 4, 4, 0.5
SAMPLES = 60
"""Of a client at least, by the oracle; some clients hold out few pairs."""


def form(row: dict[str, Any]) -> str:
    """What a pair's replies look like, by the oracle."""
    judged = score(row["prompt"][0]["content"], row["chosen"][0]["content"])
    return "json" if judged.format == 1 else "french" if judged.language > 0.5 else "plain"


def read(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def with_forms(source: Path, target: Path) -> Rows:
    rows = read(source)
    for row in rows:
        row["form"] = form(row)
    target.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return rows


class Judge:
    """The model once, with one adapter after another: accuracies, and the oracle on samples."""

    def __init__(self, config: TrainConfig) -> None:
        self.setup, self.seed = ModelSetup(config), config.seed
        self.policy = self.setup.policy(config)

    def pairs(self, config: TrainConfig) -> TokenisedPairs:
        """The held-out pairs of a client's settings; all of a file that holds none out."""
        data = self.setup.load_data(config)
        return data.train if data.valid is None else data.valid

    def load(self, adapter: Path) -> None:
        """Judge this one from here on."""
        self.policy.load_trained(load_adapter(adapter).weights)

    def right(self, pairs: TokenisedPairs) -> np.ndarray:
        """Whether the chosen reply of each pair has the larger logp a token."""
        scores = self.policy.score(collate(pairs, range(len(pairs))))
        assert scores.lengths is not None
        chosen, rejected = np.split(np.asarray(scores.logps) / np.asarray(scores.lengths), 2)
        return chosen > rejected

    def oracle(self, pairs: TokenisedPairs, rows: Rows, samples: int = 0) -> np.ndarray:
        """The oracle's mean for each prompt; prompts repeat until there are that many samples."""
        repeats = max(1, -(-samples // len(pairs)))
        ids = [pairs[number].prompt for number in range(len(pairs))] * repeats
        replies = self.policy.generate(ids, Sampling(48, 1.0, 1.0, self.seed, self.setup.stop))
        texts = [self.setup.tokenizer.decode(r, skip_special_tokens=True) for r in replies]
        prompts = [rows[row - 1]["prompt"][0]["content"] for row in pairs.source_rows()] * repeats
        judged = [score(*both).preferred for both in zip(prompts, texts, strict=True)]
        return np.reshape(judged, (repeats, -1)).mean(0)


def by_form(values: np.ndarray, pairs: TokenisedPairs, rows: Rows) -> dict[str, float]:
    forms = np.array([rows[row - 1]["form"] for row in pairs.source_rows()])
    means = {name: float(values[forms == name].mean()) for name in FORMS}
    return means | {"all": float(values.mean())}


def run(arm: str, seed: int, folder: Path, rows: Rows) -> dict[str, Any]:
    output = folder / arm.replace(" ", "-").replace(",", "")
    config = FederateConfig(
        model=str(assets().model),
        data=str(folder / "train.jsonl"),
        output=str(output),
        reference=str(folder / "reference"),
        cache=str(folder / "cache"),
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
    result = fpo.federate(config)
    values = {
        "arm": arm,
        "seed": seed,
        "bytes": result.bytes_sent,
        "blocks": result.blocks,
        "mixture": result.mixture,
        "worst_client": result.clients[result.worst]["accuracy"],
        **measured(config, result, folder / "valid.jsonl", rows),
        "loss": [facts["loss"] for facts in result.rounds],
    }
    shutil.rmtree(output)
    return values


def measured(
    config: FederateConfig, result: fpo.Federation, valid: Path, rows: Rows
) -> dict[str, Any]:
    """The server's adapter on all held-out pairs, and each client's own on the client's."""
    settings = client_settings(config, valid, result.output)
    judge = Judge(settings)
    pairs = judge.pairs(replace(settings, valid_fraction=0.0))
    judge.load(result.output / "adapter")
    values = {
        "forms": by_form(judge.right(pairs), pairs, rows),
        "oracle": by_form(judge.oracle(pairs, rows), pairs, rows),
    }
    clients = {}
    for name, facts in result.clients.items():
        folder = result.output / "clients"
        data = folder / f"{name}.jsonl"
        own = judge.pairs(client_settings(config, data, folder / name))
        judge.load(folder / name / "adapter")
        oracle = float(judge.oracle(own, read(data), SAMPLES).mean())
        accuracy = facts["accuracy"]
        clients[name] = {"pairs": len(own), "accuracy": accuracy, "oracle": oracle}
    return values | {"clients": clients}


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
