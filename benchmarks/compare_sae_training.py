"""Autoencoders trained by `fpo sae train` and by SAELens' BatchTopK trainer, side by side.

    pip install sae-lens==6.54.12      # in a venv of its own, beside torch and ml-dtypes
    PYTHONPATH=.:convert VENV/bin/python benchmarks/compare_sae_training.py planted
    … compare_sae_training.py activations FILE    # safetensors: train, and held-out chats, docs

`planted`: activations are sparse sums of 256 known directions in 64 dimensions; what is measured is
the mean, over directions, of the largest cosine of a decoder row. `activations`: a model's own, as
`fpo sae train` reads them; what is measured is the share of held-out variance that is unexplained,
at the autoencoder's own threshold and at one set on held-out tokens so that L0 is k. Both trainers
see the same tokens in the same order, in batches of the same size; time is CPU seconds, in turn.
SAELens runs at each of its learning rates, and the best counts.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fpo_core.backend.process_group import ALONE
from fpo_core.config import BackendConfig, SaeTrainConfig
from fpo_core.sae_training.folding import folded, threshold_of
from fpo_core.sae_training.learner import Learner
from fpo_core.sae_training.recipe import Recipe, recipe_of
from fpo_core.sae_training.shuffle_buffer import scaling_of
from fpo_torch.kernels.sparse_codes import TorchKernels

RESULTS = Path(__file__).parent / "results"
Trained = dict[str, Any]
"""W_enc (d_in, d_sae), b_enc, W_dec, b_dec, threshold; and cpu_seconds."""


def batches(x: np.ndarray, recipe: Recipe) -> Iterator[np.ndarray]:
    """Batches in an order that the seed decides, as many as the recipe has steps."""
    rng, order, at = np.random.default_rng(recipe.seed), np.zeros(0, np.int64), 0
    for _ in range(recipe.steps):
        if at + recipe.batch_tokens > len(order):
            order, at = rng.permutation(len(x)), 0
        yield x[order[at : at + recipe.batch_tokens]].astype(np.float32)
        at += recipe.batch_tokens


def ours(x: np.ndarray, recipe: Recipe) -> Trained:
    """What `fpo sae train` does with activations."""
    kernels = TorchKernels(BackendConfig(device="cpu"))
    learner = Learner(kernels, recipe, scaling_of(x, np.arange(len(x))), ALONE)
    begun = time.process_time()
    for batch in batches(x, recipe):
        learner.learn(kernels.array(batch))
    seconds = time.process_time() - begun
    learner.look()
    parameters = {name: kernels.numpy(value) for name, value in learner.parameters.items()}
    sae = folded(parameters, learner.scaling, recipe, _meta(recipe), learner.threshold)
    return dict(sae.arrays()) | {"cpu_seconds": seconds}


def _meta(recipe: Recipe) -> Any:
    from fpo_core.sae.metadata import SaeMeta

    return SaeMeta(architecture="jumprelu", d_in=recipe.d_in, d_sae=recipe.d_sae)


def sae_lens(x: np.ndarray, recipe: Recipe, rate: float) -> Trained:
    """What SAELens' BatchTopK trainer does with them: scaled to norm √d, b_dec at the mean, the
    rate falling to a tenth over the last third, as its users do.
    """
    from sae_lens import SAE, BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(recipe.seed)
    sae = BatchTopKTrainingSAE(
        BatchTopKTrainingSAEConfig(d_in=recipe.d_in, d_sae=recipe.d_sae, k=float(recipe.k))
    )
    sample = x[:100_000].astype(np.float32)
    factor = float(recipe.d_in**0.5 / np.linalg.norm(sample, axis=1).mean())
    sae.b_dec.data = torch.from_numpy(sample.mean(0) * factor)
    config = SAETrainerConfig(
        total_training_samples=recipe.steps * recipe.batch_tokens,
        train_batch_size_samples=recipe.batch_tokens,
        lr=rate,
        lr_end=rate / 10,
        lr_decay_steps=recipe.steps // 3,
        dead_feature_window=200,
        feature_sampling_window=500,
        logger=LoggingConfig(log_to_wandb=False),
    )
    data = (torch.from_numpy(batch) * factor for batch in batches(x, recipe))
    trainer = SAETrainer(config, sae, data)
    begun = time.process_time()
    trained = trainer.fit()
    seconds = time.process_time() - begun
    trained.fold_activation_norm_scaling_factor(factor)
    with tempfile.TemporaryDirectory() as folder:
        trained.save_inference_model(folder)
        saved = SAE.load_from_disk(folder)
    state = {name: value.detach().numpy() for name, value in saved.state_dict().items()}
    state["b_enc"] = state["b_enc"] - state["b_dec"] @ state["W_enc"]
    return state | {"cpu_seconds": seconds}


def measure(sae: Trained, x: np.ndarray, threshold: float | None = None) -> dict[str, float]:
    """Unexplained variance, L0 and dead share on activations (n, d_in), at a threshold."""
    x = x.astype(np.float32)
    errors, active, fired = 0.0, 0, np.zeros(sae["W_enc"].shape[1], bool)
    for part in np.array_split(x, max(1, len(x) // 2048)):
        pre = part @ sae["W_enc"] + sae["b_enc"]
        limit = sae["threshold"] if threshold is None else threshold
        codes = np.where(pre > limit, np.maximum(pre, 0), 0).astype(np.float32)
        errors += float(((part - codes @ sae["W_dec"] - sae["b_dec"]) ** 2).sum())
        active += int((codes > 0).sum())
        fired |= (codes > 0).any(0)
    variance = float(((x - x.mean(0)) ** 2).sum())
    return {"fvu": errors / variance, "l0": active / len(x), "dead": 1 - float(fired.mean())}


def threshold(sae: Trained, x: np.ndarray, k: int) -> float:
    """The threshold at which k features are active per token of x."""
    kernels = TorchKernels(BackendConfig(device="cpu"))
    from fpo_core.sae.sae import Sae

    named = {name: sae[name] for name in ("W_enc", "b_enc")}
    d_in, d_sae = sae["W_enc"].shape
    canonical = Sae(architecture="relu", d_in=d_in, d_sae=d_sae, **named)
    return threshold_of(kernels, canonical, k, np.array_split(x, max(1, len(x) // 2048)))


def planted(args: argparse.Namespace) -> dict[str, Any]:
    """Known directions: does a decoder row point along each?"""
    rng = np.random.default_rng(7)
    directions = rng.normal(size=(256, 64))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    chances = np.exp(rng.uniform(np.log(0.005), np.log(0.05), 256))
    active = rng.random((200_000, 256)) < chances
    x = (active * (1 + np.abs(rng.normal(size=active.shape)))) @ directions
    x = x.astype(np.float32)
    k = round(float(active.sum(1).mean()))
    runs = []
    for seed in args.seeds:
        recipe = _recipe(args, 64, 256, k, seed, len(x))
        for name, train in trainers(args, recipe):
            sae = train(x)
            rows = sae["W_dec"] / np.linalg.norm(sae["W_dec"], axis=1, keepdims=True)
            cosine = float((directions @ rows.T).max(1).mean())
            runs.append({"trainer": name, "seed": seed, "mean_max_cosine": cosine})
            runs[-1] |= {"cpu_seconds": sae["cpu_seconds"]}
            print(json.dumps(runs[-1]), flush=True)
    return {"d_in": 64, "features": 256, "k": k, "runs": runs}


def trainers(
    args: argparse.Namespace, recipe: Recipe
) -> list[tuple[str, Callable[[np.ndarray], Trained]]]:
    """Each trainer by name, SAELens' at each rate."""
    listed: list[tuple[str, Callable[[np.ndarray], Trained]]] = []
    if "ours" in args.trainers:
        listed.append(("fpo", lambda x: ours(x, recipe)))
    if "sae-lens" in args.trainers:
        listed += [
            (f"sae-lens, rate {rate:g}", lambda x, rate=rate: sae_lens(x, recipe, rate))
            for rate in args.rates
        ]
    return listed


def _recipe(
    args: argparse.Namespace, d_in: int, d_sae: int, k: int, seed: int, distinct: int
) -> Recipe:
    config = SaeTrainConfig(
        model="", data="", output="", d_sae=d_sae, k=k, tokens=args.tokens, seed=seed,
        batch_tokens=args.batch_tokens,
    )  # fmt: skip
    return recipe_of(config, d_in, distinct)


def activations(args: argparse.Namespace) -> dict[str, Any]:
    """A model's own activations."""
    from fpo_core.io.reader import open_safetensors

    file = open_safetensors(args.file)
    data = {name: file.stored(name) for name in file.entries}
    held_out = {name: rows for name, rows in data.items() if name != "train"}
    train, runs = data["train"], []
    for seed in args.seeds:
        recipe = _recipe(args, train.shape[1], args.d_sae, args.k, seed, len(train))
        for name, fit in trainers(args, recipe):
            sae = fit(train)
            run: dict[str, Any] = {"trainer": name, "seed": seed}
            run["cpu_seconds"] = sae["cpu_seconds"]
            run["tokens_per_cpu_second"] = recipe.steps * recipe.batch_tokens / sae["cpu_seconds"]
            for part, rows in held_out.items():
                at = threshold(sae, rows[::2], recipe.k)
                run[part] = measure(sae, rows[1::2], at)
                run[part] |= {"own_threshold": measure(sae, rows[1::2])}
            runs.append(run)
            print(json.dumps(run), flush=True)
    facts = {"d_in": train.shape[1], "d_sae": args.d_sae, "k": args.k, "distinct": len(train)}
    return facts | {"runs": runs}


def main() -> None:
    """Run one comparison and add it to its file of results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["planted", "activations"])
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--d-sae", type=int, default=4096)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-4, 1e-3])
    parser.add_argument("--trainers", nargs="+", default=["ours", "sae-lens"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "tokens": args.tokens,
        "batch_tokens": args.batch_tokens,
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": version("torch"),
    }
    if "sae-lens" in args.trainers:
        result["sae_lens"] = version("sae-lens")
    result |= {"planted": planted, "activations": activations}[args.what](args)
    out = args.out or RESULTS / f"sae-training-{args.what}.json"
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
