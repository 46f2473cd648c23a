"""A step of FPO beside a DPO step of others: TRL 1.16 on torch, mlx-lm-lora 5.10 on MLX.

The same model, pairs, token ids, LoRA (rank 8 on all linear layers), batch and precision; each side
is a process of its own, their steps interleaved. `--python` is the interpreter of an environment
with the peer installed, where this one lacks it.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_step import (
    command,
    model_folder,
    options_of,
    parser,
    peak_of,
    result_name,
    setting_of,
)
from benchmarks.interleave import alternate, compare, ratio, serve, show
from benchmarks.record import ROOT, write_result
from benchmarks.shapes import LINEAR, MODELS, batch_of, mlx_on_cpu
from fpo_core.data.batches import Batch

WORLD = ROOT / "fpo" / "world" / "data"
PEERS = {
    "torch": ("TRL online", "TRL precomputed", "TRL online, compact", "TRL precomputed, compact"),
    "cuda": ("TRL online", "TRL precomputed"),
    "mlx": ("mlx-lm-lora",),
}


def trl_step(options: dict[str, Any], batch: Batch) -> Callable[[], None]:
    """TRL's DPO step. `compact` computes the head at completions alone, as TRL does on CUDA."""
    import torch
    import trl.trainer.utils
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    if options["compact"]:
        trl.trainer.utils._use_triton = lambda device: True
    scratch, on_cpu = tempfile.mkdtemp(), options["device"] == "cpu"
    dtype = getattr(torch, options["dtype"])
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(options["folder"], dtype=dtype),
        args=DPOConfig(
            output_dir=scratch,
            per_device_train_batch_size=batch.pairs,
            use_cpu=on_cpu,
            bf16=dtype == torch.bfloat16,
            gradient_checkpointing=options["grad_checkpoint"],
            report_to=[],
        ),
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=AutoTokenizer.from_pretrained(WORLD / "model"),
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules=LINEAR, task_type="CAUSAL_LM"),
    )
    if options["grad_checkpoint"]:  # as `train` does before its first step
        trainer.model.activation_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
    mask = np.arange(batch.width) < batch.lengths[:, None]
    inputs = {
        "input_ids": torch.from_numpy(batch.tokens).long(),
        "attention_mask": torch.from_numpy(mask).long(),
        "completion_mask": torch.from_numpy(batch.completion_mask()).long(),
    }
    inputs = {name: each.to(options["device"]) for name, each in inputs.items()}
    if options["precomputed"]:
        with torch.no_grad():
            logps = trainer.compute_ref_log_probs(trainer.model, inputs)
        inputs |= dict(zip(("ref_chosen_logps", "ref_rejected_logps"), logps, strict=True))
        trainer.precompute_ref_logps = True
    weights = [weight for weight in trainer.model.parameters() if weight.requires_grad]
    adam = torch.optim.AdamW(weights, lr=1e-5)

    def step() -> None:
        trainer.model.train()
        with trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(trainer.model, inputs)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)

    if on_cpu:
        return step
    from benchmarks.gpu import synchronised

    return synchronised(step)


def mlx_lm_lora_step(options: dict[str, Any], batch: Batch) -> Callable[[], None]:
    """The step of its `train_dpo`, from its functions; the reference is a second model, as there.

    Not compiled: on a CPU that gains nothing.
    """
    import mlx.core as mx
    from mlx import nn, optimizers
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model
    from mlx_lm_lora.trainer import dpo_trainer as peer

    model, _ = load_model(Path(options["folder"]))
    reference, _ = load_model(Path(options["folder"]))
    model.freeze()
    keys = [f"self_attn.{name}" for name in LINEAR[:4]] + [f"mlp.{name}" for name in LINEAR[4:]]
    settings = {"rank": 8, "scale": 2.0, "dropout": 0.0, "keys": keys}
    linear_to_lora_layers(model, len(model.layers), settings)
    model.train()
    if options["grad_checkpoint"]:
        peer.grad_checkpoint(model.layers[0])
    adam = optimizers.AdamW(1e-5)
    sides = np.split(batch.tokens, 2), np.split(batch.completion_mask(), 2)
    tokens, masks = ([mx.array(side) for side in both] for both in sides)

    def scores(model: Any, side: int) -> mx.array:
        per_token = peer.get_token_scores(model, tokens[side], masks[side])
        return peer.compute_score(per_token, masks[side], "sigmoid")

    def loss() -> Any:
        policy = [scores(model, side) for side in (0, 1)]
        frozen = [mx.stop_gradient(scores(reference, side)) for side in (0, 1)]
        return peer.dpo_loss(*policy, *frozen, *masks, beta=0.1, delta=50.0)

    differentiate = nn.value_and_grad(model, loss)

    def step() -> None:
        (value, *_), gradient = differentiate()
        adam.update(model, gradient)
        mx.eval(value, model.trainable_parameters(), adam.state)

    return step


def work(options: dict[str, Any]) -> None:
    """Be a peer."""
    batch = batch_of(options["pairs"], MODELS[options["model"]][1]["vocab_size"])
    if options["backend"] == "torch":
        serve(trl_step(options, batch), peak_of(options))
    else:
        peak = mlx_on_cpu().get_peak_memory
        serve(mlx_lm_lora_step(options, batch), peak)


def peer_command(python: str, options: dict[str, Any], name: str) -> list[str]:
    """The command line of a peer's worker."""
    flags = {"precomputed": "precomputed" in name, "compact": "compact" in name}
    worker = json.dumps(options | flags)
    return [python, "-m", "benchmarks.bench_peers", "--peer", worker]


def main() -> None:
    arguments = parser()
    arguments.add_argument("--peer")
    arguments.add_argument("--python", default=sys.executable)
    arguments.add_argument("--against", nargs="*", default=None, help="some of the peers")
    arguments = arguments.parse_args()
    if arguments.peer:
        work(json.loads(arguments.peer))
        return
    on_gpu = arguments.device == "cuda"
    names = arguments.against or PEERS["cuda" if on_gpu else arguments.backend]
    with model_folder(arguments) as folder:
        options = options_of(arguments, folder)
        rows = {name: against(arguments, options, name) for name in names}
    whole_head = not on_gpu and set(names) <= {"TRL online", "TRL precomputed"}
    values = {"setting": setting_of(arguments), "rows": rows}
    write_result(result_name("peers", arguments, *["whole-head"] * whole_head), values)


def against(arguments: argparse.Namespace, options: dict[str, Any], name: str) -> dict[str, Any]:
    """FPO and one peer, step by step in turn."""
    commands = {"fpo": command(options), name: peer_command(arguments.python, options, name)}
    ours, theirs = alternate(commands, arguments.steps).values()
    row = compare(ours, theirs)
    show("fpo", row, name)
    return {
        "fpo_seconds": row["seconds"],
        "peer_seconds": float(np.median(theirs.times)),
        "fpo_gb": row["peak_gb"],
        "peer_gb": theirs.report["peak"] / 1e9,
        "time_ratio": row["time_ratio"],
        "cpu_time_ratio": ratio(ours.cpu_times, theirs.cpu_times),
        "memory_ratio": row["memory_ratio"],
        "peer_versions": theirs.versions,
    }


if __name__ == "__main__":
    main()
