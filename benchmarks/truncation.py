"""What becomes of replies that are cut: the three ways of `truncation`, on the embedded world.

Run: python -m benchmarks.truncation [--seeds 2] [--backend torch]

The quickstart's settings under a token budget that cuts a part of the replies. Sampled replies to
held-out prompts are judged by the world's grammar, which tells a whole reply from one that stops in
the middle; held-out pairs are measured uncut.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

import fpo
from benchmarks.record import write_result
from fpo.model_setup import FROZEN, ModelSetup
from fpo.quickstart_settings import QUICKSTART_SETTINGS
from fpo.world import assets, score
from fpo_core.backend.policy import Sampling
from fpo_core.config import DataConfig, GenerateConfig
from fpo_core.config.yaml_file import read_yaml
from fpo_core.data.load import load_data
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.data.tokenizer import load_tokenizer

WAYS = ("drop", "cut", "keep-end")
BUDGETS = (45, 42)
"""Tokens of prompt and reply: of the pairs a quarter is longer than the first, half than 42."""
WHOLE, SAMPLES, TOKENS = 64, 200, 64
FIGURES = ("pairs", "raw_accuracy", "whole", "preferred", "tokens")


def samples(adapter: Path | None, backend: str, cache: str) -> dict[str, float]:
    """Of sampled replies: shares that are whole and that the pairs prefer, and their length."""
    folder = None if adapter is None else str(adapter)
    config = GenerateConfig(model=str(assets().model), adapter=folder, prompt="", backend=backend)
    setup = ModelSetup(config)
    data = load_data(
        DataConfig(data=str(assets().pairs), max_seq_length=WHOLE, cache=cache), setup.tokenizer
    )
    assert data.valid is not None
    prompts = [data.valid[i].prompt for i in range(SAMPLES)]
    sampled = setup.policy(FROZEN).generate(prompts, Sampling(TOKENS, 1.0, 1.0, 0, setup.stop))
    decode = setup.tokenizer.decode
    said = [
        (decode(prompt, skip_special_tokens=True), decode(ids, skip_special_tokens=True))
        for prompt, ids in zip(prompts, sampled, strict=True)
    ]
    scores = [score(*texts) for texts in said]
    return {
        "whole": mean(s.well_formed for s in scores),
        "preferred": mean(s.preferred for s in scores),
        "tokens": float(np.mean([len(ids) for ids in sampled])),
    }


def run(way: str, budget: int, seed: int, backend: str, folder: Path) -> dict[str, Any]:
    shared = {"model": assets().model, "data": assets().pairs, "backend": backend}
    shared |= {"sae": folder / "sae.safetensors", "cache": folder / "cache"}
    options = read_yaml(QUICKSTART_SETTINGS) | {"seed": seed, "max_seq_length": budget}
    options |= {"truncation": way, "val_pairs": 16, "steps_per_eval": 130, "preflight": False}
    output = folder / f"{way}-{budget}-{seed}"
    fpo.train(**shared, **options, output=output)
    whole = {"max_seq_length": WHOLE, "beta": options["beta"], "samples": 0, "greedy_answers": 0}
    evaluated = fpo.evaluate(**shared, **whole, adapter=output)
    return {
        "budget": budget,
        "truncation": way,
        "seed": seed,
        "pairs": len(read_pairs(way, budget, folder)),
        "raw_accuracy": evaluated.metrics["raw_accuracy"]["value"],
        **samples(output, backend, str(folder / "cache")),
    }


def read_pairs(way: str, budget: int, folder: Path) -> TokenisedPairs:
    """The training pairs under a budget."""
    config = DataConfig(
        data=str(assets().pairs),
        max_seq_length=budget,
        truncation=way,  # pyright: ignore[reportArgumentType]
        cache=str(folder / "cache"),
    )
    return load_data(config, load_tokenizer(str(assets().model))).train


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a table: a budget and a way of truncation each, over the seeds."""
    table = []
    for budget in BUDGETS:
        for way in WAYS:
            group = [r for r in rows if (r.get("budget"), r["truncation"]) == (budget, way)]
            if group:
                figures = {key: mean(row[key] for row in group) for key in FIGURES}
                table.append({"budget": budget, "truncation": way, **figures})
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--backend", default="torch")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fpo.convert_sae(source=assets().sae, out=folder / "sae.safetensors")
        start = samples(None, args.backend, str(folder / "cache"))
        rows: list[dict[str, Any]] = []
        for seed in range(args.seeds):
            for budget in BUDGETS:
                for way in WAYS:
                    rows.append(run(way, budget, seed, args.backend, folder))
                    write_result("truncation", {"start": start, "means": means(rows), "rows": rows})
                    print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(json.dumps(means(rows), indent=2))


if __name__ == "__main__":
    main()
