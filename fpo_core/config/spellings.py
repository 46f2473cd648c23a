"""Other names of settings: TRL's and mlx-lm's that mean the same, and advice where they do not."""

ALIASES = {"max_seq_length": "max_length", "temperature": "temp"}
"""Second names of settings that help and documentation show."""
SPELLINGS = {
    "dataset_name": "data",
    "eval_steps": "steps_per_eval",
    "gpu_memory_utilization": "vllm_memory",
    "gradient_accumulation_steps": "grad_accumulation_steps",
    "gradient_checkpointing": "grad_checkpoint",
    "logging_steps": "steps_per_report",
    "lora_dropout": "dropout",
    "lora_layers": "num_layers",
    "lora_r": "rank",
    "lora_rank": "rank",
    "lora_target_modules": "target_modules",
    "lr": "learning_rate",
    "lr_scheduler_type": "schedule",
    "max_new_tokens": "max_tokens",
    "max_steps": "iters",
    "model_name_or_path": "model",
    "n": "samples",
    "num_return_sequences": "samples",
    "num_train_epochs": "epochs",
    "optim": "optimizer",
    "output_dir": "output",
    "per_device_train_batch_size": "batch_size",
    "save_path": "out",
    "save_steps": "save_every",
    "torch_dtype": "dtype",
    "vllm_gpu_memory_utilization": "vllm_memory",
    "warmup_ratio": "warmup",
    "warmup_steps": "warmup",
}
"""Names of other programs that are taken for ours without a word."""
_ADVICE = {
    "adapter_path": "set adapter to the folder to start from, or output to the one to write",
    "bf16": "set dtype to bfloat16",
    "fp16": "set dtype to bfloat16",
    "lora_alpha": "set scale, which is lora_alpha / rank",
    "loss_type": "set objective; TRL's sigmoid is dpo, its sigmoid_norm is dpo-norm",
    "resume_adapter_file": "set adapter to the folder to start from",
    "resume_from_checkpoint": "set resume, which finds the newest checkpoint in output",
    "use_vllm": "set sampler to vllm",
    "val_batches": "set val_pairs, which counts pairs",
}


def canonical(name: str) -> str:
    """Our name of a setting that another program, or a user, calls `name`; `name` itself if none.

    In snake case; dashes may stand for underscores.
    """
    name = name.replace("-", "_")
    return SPELLINGS.get(name) or _OURS.get(name, name)


def advice(name: str) -> str | None:
    """What to do in place of a setting of TRL or mlx-lm that has no exact counterpart here."""
    return _ADVICE.get(name.replace("-", "_"))


_OURS = {alias: name for name, alias in ALIASES.items()}
