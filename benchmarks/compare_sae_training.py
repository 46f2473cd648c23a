"""Autoencoders trained by `fpo sae train` and by SAELens' BatchTopK trainer, side by side.

    pip install sae-lens==6.54.12      # in a venv of its own, beside torch and ml-dtypes
    PYTHONPATH=.:convert VENV/bin/python benchmarks/compare_sae_training.py planted
    … compare_sae_training.py activations FOLDER    # that `fpo sae train --cache` filled
    … compare_sae_training.py speed FOLDER --tokens 8192 --most 7   # a few steps of each in turn
    … compare_sae_training.py forward MODEL         # the model's pass up to block 24, in turn

`planted`: activations are sparse sums of 256 known directions in 64 dimensions; what is measured is
the mean, over directions, of the largest cosine of a decoder row. `activations`: a model's own, as
`fpo sae train` reads them; what is measured is the share of held-out variance that is unexplained
at a threshold set on other held-out tokens so that L0 is k. Both trainers see the same tokens in
the same order, in batches of the same size; time is CPU seconds. Both run at each rate with the
first seed, and at their best with the others; fpo also at its default. A run that was broken off
goes on.
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
from fpo_core.io.reader import open_safetensors
from fpo_core.sae_training.folding import folded, threshold_of, write_folded
from fpo_core.sae_training.learner import Learner
from fpo_core.sae_training.recipe import Recipe, recipe_of
from fpo_core.sae_training.shuffle_buffer import scaling_of
from fpo_torch.kernels.sparse_codes import TorchKernels

RESULTS = Path(__file__).parent / "results"
Trained = dict[str, Any]
"""W_enc (d_in, d_sae), b_enc, W_dec, b_dec; and cpu_seconds."""
Run = dict[str, Any]
"""A trainer at a rate and a seed, and what came of it; at rate None with fpo's own default."""
Measure = Callable[[Trained, Run], Run]


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


def sae_lens(x: np.ndarray, recipe: Recipe) -> Trained:
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
        lr=recipe.learning_rate,
        lr_end=recipe.learning_rate / 10,
        lr_decay_steps=recipe.steps // 3,
        dead_feature_window=max(1, recipe.steps // 10),
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


def measure(sae: Trained, x: np.ndarray, limit: float) -> dict[str, float]:
    """Unexplained variance, L0 and dead share on activations (n, d_in), at a threshold."""
    x = x.astype(np.float32)
    errors, active, fired = 0.0, 0, np.zeros(sae["W_enc"].shape[1], bool)
    for part in np.array_split(x, max(1, len(x) // 2048)):
        pre = part @ sae["W_enc"] + sae["b_enc"]
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


class Comparison:
    """Runs of every trainer, written as they end; those that the file already has are kept."""

    def __init__(self, args: argparse.Namespace, facts: dict[str, Any]) -> None:
        self.args, self.out = args, args.out or RESULTS / f"sae-training-{args.what}.json"
        self.result = facts
        self.runs = self.written()
        self.left = args.most

    def written(self) -> list[Run]:
        """The runs of the file."""
        if not self.out.exists():
            return []
        result = json.loads(self.out.read_text())
        runs = result.pop("runs")
        if result != self.result:
            raise SystemExit(f"{self.out} has runs of another setting: remove it")
        return runs

    def run(self, x: np.ndarray, sizes: tuple[int, int, int], measure: Measure) -> None:
        """Each trainer at each rate with the first seed, at the best one with the others."""
        for seed in self.args.seeds:
            for trainer in self.args.trainers:
                first = seed == self.args.seeds[0] or not self.args.rates
                tuned = self.args.rates if first else [self.best(trainer)]
                for rate in [*tuned, *([None] if trainer == "fpo" else [])]:
                    wanted = {"trainer": trainer, "seed": seed, "rate": rate}
                    if self.left and not any(wanted.items() <= run.items() for run in self.runs):
                        recipe = _recipe(self.args, *sizes, seed, rate, len(x))
                        sae = (ours if trainer == "fpo" else sae_lens)(x, recipe)
                        seconds = sae["cpu_seconds"]
                        speed = {
                            "cpu_seconds": seconds,
                            "tokens_per_cpu_second": (recipe.steps * recipe.batch_tokens / seconds),
                        }
                        self.add(wanted | speed | measure(sae, wanted))
                        self.left -= 1

    def best(self, trainer: str) -> float:
        """The rate at which the first seed has the least loss."""
        tried = [
            run
            for run in self.runs
            if run["trainer"] == trainer and run["seed"] == self.args.seeds[0] and run["rate"]
        ]
        return min(tried, key=lambda run: run["measured"])["rate"] if tried else self.args.rates[0]

    def add(self, run: Run) -> None:
        """Write one more run."""
        print(json.dumps(run), flush=True)
        self.runs = [*self.written(), run]
        text = json.dumps(self.result | {"runs": self.runs}, indent=1) + "\n"
        self.out.write_text(text, encoding="utf-8")


def planted(args: argparse.Namespace, facts: dict[str, Any]) -> None:
    """Known directions: does a decoder row point along each?"""
    rng = np.random.default_rng(7)
    directions = rng.normal(size=(256, 64))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    chances = np.exp(rng.uniform(np.log(0.005), np.log(0.05), 256))
    active = rng.random((200_000, 256)) < chances
    x = (active * (1 + np.abs(rng.normal(size=active.shape)))) @ directions
    x = x.astype(np.float32)
    k = round(float(active.sum(1).mean()))

    def measured(sae: Trained, _: Run) -> Run:
        rows = sae["W_dec"] / np.linalg.norm(sae["W_dec"], axis=1, keepdims=True)
        cosine = float((directions @ rows.T).max(1).mean())
        return {"mean_max_cosine": cosine, "measured": 1 - cosine}

    facts |= {"d_in": 64, "features": 256, "k": k}
    Comparison(args, facts).run(x, (64, 256, k), measured)


def _recipe(
    args: argparse.Namespace,
    d_in: int,
    d_sae: int,
    k: int,
    seed: int,
    rate: float | None,
    distinct: int,
) -> Recipe:
    config = SaeTrainConfig(
        model="", data="", output="", d_sae=d_sae, k=k, tokens=args.tokens, seed=seed,
        batch_tokens=args.batch_tokens, learning_rate=rate,
    )  # fmt: skip
    return recipe_of(config, d_in, distinct)


def activations(args: argparse.Namespace, facts: dict[str, Any]) -> None:
    """A model's own activations."""
    train, held_out = cached(args.folder, "train"), cached(args.folder, "threshold")

    def measured(sae: Trained, run: Run) -> Run:
        at = threshold(sae, held_out[::2], args.k)
        values = measure(sae, held_out[1::2], at)
        if args.save:
            name = f"{run['trainer']}-{run['rate'] or 'default'}-{run['seed']}.safetensors"
            save(sae, at, args.save / name)
        return values | {"measured": values["fvu"]}

    facts |= {"d_in": train.shape[1], "d_sae": args.d_sae, "k": args.k, "distinct": len(train)}
    Comparison(args, facts).run(train, (train.shape[1], args.d_sae, args.k), measured)


def cached(folder: Path, part: str) -> np.ndarray:
    """The activations of one hook in a cache of `fpo sae train`, (n, d_in) bfloat16."""
    files = sorted(folder.glob(f"activations-{part}-*/*.safetensors"))
    return np.concatenate([open_safetensors(file).stored("hook000") for file in files])


def speed(args: argparse.Namespace, facts: dict[str, Any]) -> None:
    """A few steps of each, in turn."""
    train = cached(args.folder, "train")[:100_000]
    names = {"fpo": ours, "sae-lens": sae_lens}
    found: dict[str, list[float]] = {name: [] for name in names}
    for seed in range(args.most):
        recipe = _recipe(args, train.shape[1], args.d_sae, args.k, seed, None, len(train))
        for name, fit in names.items():
            seconds = fit(train, recipe)["cpu_seconds"]
            found[name].append(recipe.steps * recipe.batch_tokens / seconds)
            print(name, found[name][-1], flush=True)
    ratios = [a / b for a, b in zip(*found.values(), strict=True)]
    medians = {name: float(np.median(rates)) for name, rates in found.items()}
    facts |= {"d_in": train.shape[1], "d_sae": args.d_sae, "k": args.k}
    facts |= {"tokens_per_cpu_second": found, "median": medians}
    facts |= {
        "ratio": {"median": float(np.median(ratios)), "low": min(ratios), "high": max(ratios)}
    }
    (args.out or RESULTS / "sae-training-speed.json").write_text(json.dumps(facts, indent=1) + "\n")


def forward(args: argparse.Namespace, facts: dict[str, Any]) -> None:
    """The same batches through the same model up to a block, by each in turn, in float32."""
    from sae_lens.load_model import load_model

    from fpo_core.config import ModelConfig
    from fpo_core.sae.hook import Hook
    from fpo_torch.activation_reader import TorchReader

    folder, layer = args.folder, 24
    reader = TorchReader(
        folder, ModelConfig(model=str(folder), dtype="float32"), [Hook(layer, "resid_post")]
    )
    options = {"model_from_pretrained_kwargs": {"dtype": torch.float32}}
    model: Any = load_model("AutoModelForCausalLM", str(folder), "cpu", **options)
    name, rng = f"model.layers.{layer}", np.random.default_rng(0)

    def theirs(tokens: np.ndarray) -> Any:
        ids, only = torch.from_numpy(tokens), {"names_filter": [name], "stop_at_layer": layer + 1}
        with torch.no_grad():
            return model.run_with_cache(ids, **only)[1][name]

    readers = {"fpo": lambda tokens: reader.read(tokens)[0], "sae-lens": theirs}
    found: dict[str, list[float]] = {who: [] for who in readers}
    for number in range(args.most + 1):
        tokens, outputs = rng.integers(10, 40_000, (8, 128)), []
        for who, read in readers.items():
            begun = time.process_time()
            outputs.append(np.asarray(read(tokens)))
            if number:  # the first one warms up
                found[who].append(tokens.size / (time.process_time() - begun))
        assert np.allclose(*outputs, atol=1e-2)
    ratios = [b / a for a, b in zip(*found.values(), strict=True)]
    facts |= {"tokens_per_cpu_second": found, "time_ratio": {"median": float(np.median(ratios))}}
    facts["time_ratio"] |= {"low": min(ratios), "high": max(ratios)}
    del facts["tokens"], facts["batch_tokens"]
    (args.out or RESULTS / "sae-forward.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(facts["time_ratio"], {name: float(np.median(rates)) for name, rates in found.items()})


def save(sae: Trained, limit: float, path: Path) -> None:
    """A canonical file, for `fpo sae check`."""
    from fpo_core.sae.hook import Hook
    from fpo_core.sae.sae import Sae

    d_in, d_sae = sae["W_enc"].shape
    arrays = {name: np.float32(sae[name]) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    path.parent.mkdir(parents=True, exist_ok=True)
    canonical = Sae(
        architecture="jumprelu", d_in=d_in, d_sae=d_sae, hook=Hook(24, "resid_post"),
        untrained_tokens=("special",), threshold=np.full(d_sae, limit, np.float32), **arrays,
    )  # fmt: skip
    write_folded(path, canonical, "float32")


def main() -> None:
    """Run one comparison and add it to its file of results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["planted", "activations", "speed", "forward"])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--d-sae", type=int, default=4096)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="*", default=[1e-3, 3e-3, 1e-2])
    parser.add_argument("--trainers", nargs="+", default=["fpo", "sae-lens"])
    parser.add_argument("--most", type=int, default=1000, help="runs of this call")
    parser.add_argument("--save", type=Path, help="folder for the autoencoders")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    facts = {
        "tokens": args.tokens,
        "batch_tokens": args.batch_tokens,
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": version("torch"),
        "sae_lens": version("sae-lens"),
    }
    parts = {"planted": planted, "activations": activations, "speed": speed, "forward": forward}
    parts[args.what](args, facts)


if __name__ == "__main__":
    main()
