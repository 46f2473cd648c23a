"""Sampling against the libraries it rests on: mlx-lm's batch_generate, transformers' generate.

The same model, prompts, batch, temperature and number of tokens, in one process and in turn; times
are CPU seconds where there is no accelerator. Nothing ends a completion. On torch `sampler`
vllm takes part where it can, else the result says why it does not.

Run: python -m benchmarks.bench_sampling --model FOLDER [--backend mlx] [--batch 16] [--device cuda]
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.record import write_result
from benchmarks.shapes import mlx_on_cpu
from fpo.backends import build_policy
from fpo.model_setup import FROZEN
from fpo_core.backend.policy import Sampling
from fpo_core.config import ModelConfig, SamplerConfig, StepConfig
from fpo_core.errors import BackendError
from fpo_core.models.folder import ModelFolder

Prompts = list[np.ndarray]


def with_mlx_lm(folder: str, device: str, prompts: Prompts, tokens: int) -> Callable[[], Any]:
    """mlx-lm's own batches: all prompts at once, and in our precision, as ours."""
    import mlx.core as mx
    from mlx_lm.generate import batch_generate
    from mlx_lm.sample_utils import make_sampler
    from mlx_lm.utils import load_model

    model, _ = load_model(Path(folder))
    model.set_dtype(mx.float32 if device == "cpu" else mx.bfloat16)
    tokenizer: Any = SimpleNamespace(eos_token_ids=[], decode=lambda ids: "")
    asked = [prompt.tolist() for prompt in prompts]
    options = {"sampler": make_sampler(temp=1.0), "completion_batch_size": len(prompts)}
    return lambda: batch_generate(model, tokenizer, asked, max_tokens=tokens, **options)


def with_transformers(folder: str, device: str, prompts: Prompts, tokens: int) -> Callable[[], Any]:
    """transformers' own sampling of the same padded batch."""
    import torch
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model = model.to(device).eval()
    width = max(map(len, prompts))
    ids = torch.zeros((len(prompts), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
        mask[row, width - len(prompt) :] = 1
    batch = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
    options = {"do_sample": True, "top_k": 0, "max_new_tokens": tokens, "min_new_tokens": tokens}

    def generate() -> Any:
        with torch.no_grad():
            out = model.generate(**batch, **options, pad_token_id=0, eos_token_id=None)
        return out.cpu()

    return generate


def with_vllm(config: ModelConfig, prompts: Prompts, sampling: Sampling) -> Callable[[], Any]:
    """The samples of `sampler` vllm; BackendError where it is not to be had."""
    from fpo_torch.vllm_sampling import VllmSampler

    longest = max(map(len, prompts)) + sampling.max_tokens
    memory = SamplerConfig.vllm_memory
    sampler = VllmSampler(ModelFolder.locate(config), config, memory, None, longest)
    sampler.generate(prompts, sampling)  # which loads the model
    return lambda: sampler.generate(prompts, sampling)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--backend", choices=("torch", "mlx"), default="torch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if args.backend == "mlx" and args.device == "cpu":
        mlx_on_cpu()
    generator = np.random.default_rng(0)
    lengths = generator.integers(16, 64, args.batch)
    config = ModelConfig(model=args.model, device=args.device)
    words = min(4000, ModelFolder.locate(config).config["vocab_size"])
    prompts = [generator.integers(100, words, n).astype(np.int32) for n in lengths]
    folder, step = Path(args.model), StepConfig(plain=True)
    policy = build_policy(args.backend, folder, config, FROZEN, None, step=step)
    sampling = Sampling(max_tokens=args.tokens)
    peer = {"mlx": with_mlx_lm, "torch": with_transformers}[args.backend]
    runs: dict[str, Callable[[], Any]] = {
        "ours": lambda: policy.generate(prompts, sampling),
        "peer": peer(args.model, args.device, prompts, args.tokens),
    }
    lacking: dict[str, str] = {}
    if args.backend == "torch":
        try:
            runs["vllm"] = with_vllm(config, prompts, sampling)
        except BackendError as error:
            lacking["vllm"] = str(error)
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(args.rounds + 1):
        for name, run in runs.items():
            start = clock()
            run()
            if number:  # the first round loads and compiles
                seconds[name].append(clock() - start)
    count = args.batch * args.tokens
    ratios = [p / o for o, p in zip(seconds["ours"], seconds["peer"], strict=True)]
    values = {
        "backend": args.backend,
        "device": args.device,
        "dtype": policy.info.dtype,
        "batch": args.batch,
        "tokens": args.tokens,
        "tokens_per_second": {n: count / float(np.median(s)) for n, s in seconds.items()},
        "throughput_ratio": float(np.median(ratios)),
        "ratios": ratios,
        "lacking": lacking,
    }
    print(json.dumps(values, indent=2))
    device = "" if args.device == "cpu" else f"-{args.device}"
    write_result(f"sampling-{args.backend}{device}", values)


if __name__ == "__main__":
    main()
