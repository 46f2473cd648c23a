"""`fpo sae train`'s steps on MLX and torch: the same loss from one start, and the same end?

    python -m benchmarks.compare_sae_backends FOLDER [--tokens 204800]

FOLDER is that of `compare_sae_training.py activations`. Both learn from the same batches in turn, a
few steps each, so that CPU seconds compare; MLX's CPU build uses torch's matrix products. Losses
are compared over the first 50 steps, the unexplained variance of held-out tokens at the end.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from tests.fast_blas import load_fast_blas

load_fast_blas()

import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks.compare_sae_training import batches, cached, measure, threshold  # noqa: E402
from benchmarks.record import write_result  # noqa: E402
from fpo.backends import build_kernels  # noqa: E402
from fpo_core.backend.process_group import ALONE  # noqa: E402
from fpo_core.config import BackendConfig, SaeTrainConfig  # noqa: E402
from fpo_core.sae.metadata import SaeMeta  # noqa: E402
from fpo_core.sae_training.folding import folded  # noqa: E402
from fpo_core.sae_training.learner import Learner  # noqa: E402
from fpo_core.sae_training.recipe import recipe_of  # noqa: E402
from fpo_core.sae_training.shuffle_buffer import scaling_of  # noqa: E402

COMPARED = 50
"""First steps whose losses are compared."""


def main() -> None:
    """Train both; write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=204_800)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--d-sae", type=int, default=4096)
    parser.add_argument("--k", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    train, held_out = cached(args.folder, "train"), cached(args.folder, "threshold")
    config = SaeTrainConfig(
        model="", data="", output="", d_sae=args.d_sae, k=args.k, tokens=args.tokens,
        batch_tokens=args.batch_tokens,
    )  # fmt: skip
    recipe = recipe_of(config, train.shape[1], len(train))
    scaling = scaling_of(train, np.arange(len(train)))
    learners = {
        name: Learner(build_kernels(name, BackendConfig(device="cpu")), recipe, scaling, ALONE)
        for name in ("torch", "mlx")
    }
    seconds = dict.fromkeys(learners, 0.0)
    losses: dict[str, list[float]] = {name: [] for name in learners}
    for batch in batches(train, recipe):
        for name, learner in learners.items():
            begun = time.process_time()
            losses[name].append(float(learner.learn(learner.kernels.array(batch))))
            seconds[name] += time.process_time() - begun
    result: dict[str, Any] = {"recipe": vars(recipe) | {"prefixes": list(recipe.prefixes)}}
    for name, learner in learners.items():
        parameters = {n: learner.kernels.numpy(x) for n, x in learner.parameters.items()}
        meta = SaeMeta(architecture="jumprelu", d_in=recipe.d_in, d_sae=recipe.d_sae)
        sae = dict(folded(parameters, scaling, recipe, meta, 0.0).arrays())
        values = measure(sae, held_out[1::2], threshold(sae, held_out[::2], recipe.k))
        speed = recipe.steps * recipe.batch_tokens / seconds[name]
        result[name] = values | {"tokens_per_cpu_second": speed, "losses": losses[name]}
    both = [np.array(losses[name]) for name in learners]
    off = np.abs(both[1] / both[0] - 1)
    result["largest_difference_of_loss"] = float(off[:COMPARED].max())
    result["difference_of_fvu"] = abs(result["mlx"]["fvu"] - result["torch"]["fvu"])
    print({name: result[name] for name in ("largest_difference_of_loss", "difference_of_fvu")})
    write_result("sae-backends", result)


if __name__ == "__main__":
    main()
