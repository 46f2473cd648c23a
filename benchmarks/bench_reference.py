"""The speed of the reference pass beside the bare forward pass over the same tokens.

Run: python -m benchmarks.bench_reference [--backend torch] [--pairs A,M]

The reference pass scores pairs and pools the features of an autoencoder, as `fpo reference` does
but for the store. Beside it, in turn: the model of the library alone, its logits included, over
prompt and completion of every row ("rows"), and over as many tokens as the reference pass runs, a
prompt and its two completions in one row ("packed"). Bar: at least 0.85 times the speed of either.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_step import build_policy, model_folder, options_of, parser, setting_of
from benchmarks.interleave import alternate, ratio, serve
from benchmarks.record import write_result
from benchmarks.shapes import MODELS, PAIRS, batch_of, mlx_on_cpu


def work(options: dict[str, Any]) -> None:
    """Take passes of one kind."""
    vocab = MODELS[options["model"]][1]["vocab_size"]
    batch = batch_of(options["pairs"], vocab)
    if options["what"] == "reference":
        policy = build_policy(options)
        assert policy.info.fallback is None, policy.info.fallback
        serve(lambda: policy.score(batch))
        return
    tokens = batch.tokens
    if options["what"] == "packed":
        width = max(sum(sizes) for sizes in PAIRS[options["pairs"]])
        tokens = np.resize(tokens, (batch.pairs, width))
    serve({"torch": _bare_torch, "mlx": _bare_mlx}[options["backend"]](options["folder"], tokens))


def _bare_torch(folder: str, tokens: np.ndarray) -> Callable[[], None]:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.from_numpy(tokens).long()

    @torch.no_grad()
    def step() -> None:
        model(input_ids=ids, use_cache=False)

    return step


def _bare_mlx(folder: str, tokens: np.ndarray) -> Callable[[], None]:
    mx = mlx_on_cpu()
    from mlx_lm.utils import load_model

    model = load_model(Path(folder))[0]
    ids = mx.array(tokens)
    return lambda: mx.eval(model(ids))


def measure(arguments: argparse.Namespace, pairs: str, folder: Path) -> dict[str, Any]:
    """Each kind of pass in turn, on one shape of pairs."""
    common = options_of(arguments, folder, pairs=pairs)
    kinds = ("reference", "rows", "packed")
    module = [sys.executable, "-m", "benchmarks.bench_reference", "--worker"]
    commands = {kind: [*module, json.dumps(common | {"what": kind})] for kind in kinds}
    workers = alternate(commands, arguments.steps)
    ours = workers["reference"].times
    return {
        kind: {
            "seconds": float(np.median(workers[kind].times)),
            "speed": ratio(workers[kind].times, ours),
        }
        for kind in kinds
    }


def main() -> None:
    options = parser()
    options.set_defaults(pairs="A,M")
    arguments = options.parse_args()
    if arguments.worker:
        work(json.loads(arguments.worker))
        return
    rows: dict[str, Any] = {}
    with model_folder(arguments) as folder:
        for pairs in arguments.pairs.split(","):
            rows[pairs] = measure(arguments, pairs, folder)
            print(pairs, json.dumps(rows[pairs], indent=1))
    write_result(f"reference-{arguments.backend}", {"setting": setting_of(arguments), "rows": rows})


if __name__ == "__main__":
    main()
