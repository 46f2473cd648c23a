"""How a run goes: the stored pass, what is trained, the optimiser, the loop, measurements."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from fpo_core.config.fields import Settings, setting
from fpo_core.config.optimizer_table import (
    OPTIMIZERS,
    DirectionSetting,
    OptimizerName,
    described_directions,
    described_rates,
)
from fpo_core.errors import ConfigError

VIRTUAL = ("prompt", "prefix")
"""What trains virtual tokens."""
VIRTUAL_RATE = 300.0
"""Their default learning rate over that of adapters (docs/federated.md)."""


@dataclass(frozen=True, kw_only=True)
class ReferenceConfig(Settings):
    """The stored pass of the frozen model."""

    reference: str | None = setting(
        None, help="Folder of the reference store; by default a folder beside the output."
    )
    feature_cap: int = setting(
        1024, help="Most features stored per completion, largest first.", least=1
    )
    feature_dtype: Literal["float16", "float32"] = setting(
        "float32", help="Precision of the stored features."
    )
    tokens_per_batch: int = setting(8192, help="Token budget of one forward pass.", least=8)
    rows_per_shard: int = setting(2048, help="Pairs per file of the store.", least=1)


@dataclass(frozen=True, kw_only=True)
class StepConfig(Settings):
    """How a forward pass is computed; the numbers are the same either way."""

    plain: bool = setting(
        False,
        help="Run every pair's prompt twice and keep all logits: the slow path, to compare with.",
    )
    logits_budget: int = setting(
        256, help="MiB that logits, and an autoencoder's features, may take at once.", least=1
    )
    compile: bool = setting(
        False,
        help="Compile each block whole: faster steps, minutes later. torch on CUDA alone.",
    )
    cache_limit: int | None = setting(
        None,
        help="MiB of freed memory that MLX keeps for reuse; by default MLX decides. MLX alone.",
        least=0,
    )


@dataclass(frozen=True, kw_only=True)
class AdapterConfig(Settings):
    """What is trained."""

    fine_tune_type: Literal["lora", "dora", "full", "prompt", "prefix"] = setting(
        "lora",
        help="Adapters of either kind, the weights themselves, a soft prompt, or a prefix of keys "
        "and values in every block.",
    )
    num_layers: int = setting(-1, help="Train only the last so many blocks; -1 is all.", least=-1)
    rank: int = setting(8, help="Rank of the adapters.", least=1)
    scale: float = setting(
        2.0, help="Factor on the adapter's output (PEFT's lora_alpha / rank).", above=0.0
    )
    dropout: float = setting(0.0, help="Dropout on the adapter's input.", least=0.0, most=0.9)
    target_modules: tuple[str, ...] | None = setting(
        None, help="Linear modules that get adapters, comma-separated; by default all in a block."
    )
    freeze_a: bool = setting(
        False,
        help="Train B of LoRA alone: A stays at its start, so that the mean of several adapters is "
        "the mean of what they add.",
    )
    virtual_tokens: int = setting(
        8, help="Tokens of a soft prompt or a prefix, in front of every sequence.", least=1
    )

    @property
    def virtual(self) -> bool:
        """Whether virtual tokens are trained: a soft prompt or a prefix."""
        return self.fine_tune_type in VIRTUAL

    def check(self) -> None:
        """Layers are all, or at least one; virtual tokens have no settings of LoRA's."""
        if self.num_layers == 0:
            raise ConfigError("num_layers is 0, expected -1 for all blocks or a positive number")
        if self.fine_tune_type == "dora" and self.dropout > 0:
            raise ConfigError(
                f"dropout is {self.dropout} while fine_tune_type is dora: PEFT and mlx-lm drop "
                "different inputs there, so set dropout to 0"
            )
        if not self.virtual:
            return
        for name in ("num_layers", "rank", "scale", "dropout", "target_modules"):
            value, default = getattr(self, name), self.__dataclass_fields__[name].default
            if value != default:
                raise ConfigError(
                    f"{name} is {value} while fine_tune_type is {self.fine_tune_type}, which has "
                    f"virtual tokens in place of adapters: leave {name} out"
                )


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig(Settings):
    """How a step is taken."""

    optimizer: OptimizerName = setting(
        "adamw",
        help="Optimiser of the framework; torch has no lion. Adafactor's rate is relative to the "
        "size of each weight. lozo, lozo-m and mezo take no gradients: a step is two scoring "
        "passes in the memory of one, and they need many more of them.",
    )
    learning_rate: float | None = setting(
        None,
        help="Peak learning rate; by default the preset's for the model's width, and where it has "
        f"none, for adapters and for full, {described_rates()}; for prompt and prefix "
        f"{VIRTUAL_RATE:g} times that of adapters.",
        above=0.0,
        most=1000.0,  # far beyond any use; near float32's end the frameworks fail in their own ways
    )
    weight_decay: float = setting(0.0, help="Decoupled weight decay.", least=0.0)
    warmup: float = setting(
        0.1, help="Warm-up: a share of the steps below 1, a number of steps from 1 on.", least=0.0
    )
    schedule: Literal["constant", "cosine", "linear"] = setting(
        "cosine", help="Learning rate after the warm-up."
    )
    max_grad_norm: float = setting(
        1.0,
        help="Gradients are clipped to this norm; without gradients, an estimate of it.",
        above=0.0,
    )
    zo_rank: int | None = setting(
        None,
        help="Rank of the random directions U Vᵀ of a zeroth-order step. By default "
        f"{described_directions('zo_rank')}.",
        least=1,
    )
    zo_interval: int | None = setting(
        None,
        help="Steps between new V; U is new in every step. By default "
        f"{described_directions('zo_interval')}.",
        least=1,
    )
    zo_epsilon: float | None = setting(
        None,
        help="How far along a direction the loss is evaluated, to both sides. By default "
        f"{described_directions('zo_epsilon')}.",
        above=0.0,
    )
    zo_momentum: float | None = setting(
        None,
        help="Share of the earlier mean in the running mean of steps. By default "
        f"{described_directions('zo_momentum')}.",
        least=0.0,
        most=0.9999,
    )

    @property
    def zeroth_order(self) -> bool:
        """Whether steps are taken with differences of the loss in place of gradients."""
        return bool(OPTIMIZERS[self.optimizer].directions)

    def direction(self, name: DirectionSetting) -> Any:
        """A setting of directions in force: as set, else the optimizer's default, else None."""
        value = getattr(self, name)
        return OPTIMIZERS[self.optimizer].directions.get(name) if value is None else value

    def peak_learning_rate(self, fine_tune_type: str) -> float:
        """The learning rate after warm-up, its default depending on what is trained."""
        if self.learning_rate is not None:
            return self.learning_rate
        of_adapters, of_full = OPTIMIZERS[self.optimizer].rates
        if fine_tune_type in VIRTUAL:
            return VIRTUAL_RATE * of_adapters
        return of_full if fine_tune_type == "full" else of_adapters

    def check(self) -> None:
        """Weight decay must mean the same in every framework; no setting is ignored in silence."""
        entry = OPTIMIZERS[self.optimizer]
        if self.weight_decay and not entry.decays:
            reason = "MLX and torch decay differently under it"
            raise ConfigError(
                f"weight_decay is {self.weight_decay} while optimizer is {self.optimizer}, "
                f"expected 0: {'it decays nothing' if entry.directions else reason}"
            )
        for name in get_args(DirectionSetting):
            if getattr(self, name) is not None and name not in entry.directions:
                having = ", ".join(n for n, row in OPTIMIZERS.items() if name in row.directions)
                raise ConfigError(
                    f"{name} is set, but the optimizer {self.optimizer} has none: leave it out, or "
                    f"choose an optimizer that has it ({having})"
                )


@dataclass(frozen=True, kw_only=True)
class LoopConfig(Settings):
    """How long a run is, and what it leaves behind."""

    output: str = setting(help="Folder for the adapter or model, checkpoints and logs.")
    batch_size: int = setting(4, help="Pairs per forward pass.", least=1)
    group_prompts: bool = setting(
        False,
        help="Put pairs with the same prompt into one batch, in which it runs once: faster, but a "
        "step then sees fewer prompts.",
    )
    grad_accumulation_steps: int = setting(1, help="Forward passes per step.", least=1)
    epochs: float | None = setting(
        None, help="Passes over the training pairs; by default 1.", above=0.0
    )
    iters: int | None = setting(None, help="Optimiser steps, in place of epochs.", least=1)
    grad_checkpoint: bool = setting(False, help="Recompute activations in backward to save memory.")
    shard: bool = setting(
        False,
        help="Split model, gradients and optimiser among the processes, which otherwise hold the "
        "whole model each. torch alone.",
    )
    cpu_offload: bool = setting(
        False,
        help="Keep the parts of a sharded model and its optimiser in the memory of the CPU. CUDA "
        "alone.",
    )
    steps_per_report: int = setting(10, help="Steps between lines of the log.", least=1)
    steps_per_eval: int | None = setting(
        None,
        help="Steps between validations; by default ten times in a run, or less often and on fewer "
        "pairs, to take about a tenth of its work.",
        least=1,
    )
    best_metric: Literal["loss", "rewards/accuracies", "rewards/margins", "fpo/raw_accuracy"] = (
        setting(
            "loss",
            help="Validation metric whose lowest loss, or highest value, is the best result.",
        )
    )
    early_stopping: int | None = setting(
        None,
        help="Validations in a row without a better result that end the run; by default it goes "
        "through.",
        least=1,
    )
    max_perplexity: float | None = setting(
        None,
        help="Times the start's perplexity of texts, such as 1.05, beyond which a run ends with "
        "the weights of the last validation within; by default it only warns.",
        above=1.0,
    )
    max_kl: float | None = setting(
        None,
        help="Sequential KL per token of held-out chosen replies, in nats, beyond which a run ends "
        "likewise. Costs a pass of the reference over 16 pairs at each validation.",
        above=0.0,
    )
    save_every: int | None = setting(
        None,
        help="Steps between checkpoints; by default at each validation, as always under "
        "max_perplexity and max_kl. The best validation so far always makes one.",
        least=1,
    )
    preflight: bool = setting(
        True, help="Try the largest batches before anything else, for memory, time and disk."
    )
    yes: bool = setting(
        False,
        help="Train a quick autoencoder on the pairs where sae is auto and none is published.",
    )
    dry_run: bool = setting(False, help="Only that: nothing is trained or written to the output.")
    save_total_limit: int = setting(2, help="Checkpoints kept, the newest ones.", least=1)
    resume: bool = setting(
        False, help="Go on from the newest checkpoint in output, under the same settings."
    )
    process_timeout: float = setting(
        120.0,
        help="Seconds without a sign of life after which several processes give up on one of them.",
        above=0.0,
    )
    allow_change: tuple[str, ...] | None = setting(
        None, help="Settings that may differ from the checkpoint's on resuming, comma-separated."
    )
    report_to: tuple[str, ...] | None = setting(
        None, help="Trackers that get the metrics too: tensorboard, wandb, comma-separated."
    )
    nonfinite_limit: int = setting(
        5, help="Steps in a row with a non-finite loss or gradient that end the run.", least=1
    )
    step0_pairs: int = setting(
        16, help="Pairs on which the stored reference is checked before step 1; 0 is none.", least=0
    )

    def check(self) -> None:
        """Length is given in epochs or in steps; changes are allowed to a run that goes on."""
        if self.epochs is not None and self.iters is not None:
            raise ConfigError(
                "epochs and iters are both set, expected one of them: remove the other"
            )
        if self.cpu_offload and not self.shard:
            raise ConfigError("cpu_offload is set while shard is not: set shard too")
        if self.allow_change and not self.resume:
            raise ConfigError("allow_change is set while resume is not: set resume too")
        unknown = sorted(self.allowed_changes() - {*self.names(), "processes"})
        if unknown:
            raise ConfigError(
                f"allow_change names {unknown[0]!r}, expected settings, such as learning_rate"
            )

    def allowed_changes(self) -> set[str]:
        """Settings that may differ from a checkpoint's."""
        return {name.replace("-", "_") for name in self.allow_change or ()}


@dataclass(frozen=True, kw_only=True)
class PublishConfig(Settings):
    """Where the result goes besides this disk."""

    push_to_hub: str | None = setting(
        None,
        help="Hub name, such as user/model, to upload the result to; private where new. Its card "
        "shows answers to held-out prompts.",
    )


@dataclass(frozen=True, kw_only=True)
class ReportedConfig(Settings):
    """What the report shows."""

    report: bool = setting(
        True, help="Leave report.html in the output, a page with everything to look at."
    )
    shown_pairs: int = setting(
        64, help="Held-out pairs that the report shows, token by token.", least=1
    )
    shown_features: int = setting(
        100, help="Features that the report shows, those that moved most.", least=1
    )


@dataclass(frozen=True, kw_only=True)
class MeasureConfig(Settings):
    """What is measured on held-out data."""

    val_pairs: int = setting(256, help="Validation pairs scored each time.", least=1)
    text: str | None = setting(
        None,
        help="Texts to take perplexity on: .jsonl with `text`, or one text a line; by default "
        "some lines of ordinary English.",
    )
    greedy_answers: int = setting(
        3,
        help="Held-out prompts answered greedily before and after, beside general questions; 0 "
        "asks none of both.",
        least=0,
    )
    prompts: str | None = setting(
        None,
        help="General questions: .jsonl or .json with `prompt` and perhaps `expected` (words "
        "between |), or one a line; by default ten easy ones.",
    )
    answer_tokens: int = setting(32, help="Most tokens of such an answer.", least=1)


@dataclass(frozen=True, kw_only=True)
class SamplingConfig(Settings):
    """How completions are drawn."""

    max_tokens: int = setting(64, help="Most tokens of a completion.", least=1)
    temperature: float = setting(
        1.0, help="1 samples the model's own distribution, 0 takes the likeliest token.", least=0.0
    )
    top_p: float = setting(
        1.0, help="Sample from the likeliest tokens of this total share.", above=0.0, most=1.0
    )


@dataclass(frozen=True, kw_only=True)
class SamplerConfig(Settings):
    """What samples completions."""

    sampler: Literal["backend", "vllm"] = setting(
        "backend",
        help="What samples: the backend's own library (mlx-lm, transformers), or vllm on CUDA, "
        "where it is installed, with draws of its own. docs/online.md says what it takes.",
    )
    vllm_memory: float = setting(
        0.4,
        help="Share of the GPU's memory for vLLM: its copy of the model and its cache.",
        above=0.0,
        most=1.0,
    )

    def check(self) -> None:
        """Memory for vLLM needs vLLM."""
        if self.sampler != "vllm" and self.vllm_memory != SamplerConfig.vllm_memory:
            raise ConfigError(
                f"vllm_memory is set while sampler is {self.sampler}: set sampler to vllm, or "
                "leave it out"
            )


@dataclass(frozen=True, kw_only=True)
class ValueConfig(Settings):
    """Values that weigh the tokens of samples."""

    value: tuple[str, ...] | None = setting(
        None,
        help="Folder of a value function (fpo value train) that weighs each token by the reward it "
        "leads to; several, comma-separated or each with an option, add up.",
        repeatable=True,
    )
    value_beta: tuple[str, ...] | None = setting(
        None,
        help="How strongly values weigh, per unit of their reward: one number, or one for each "
        "value; by default 1. Below 0 the reward is avoided.",
        repeatable=True,
    )
    value_top_k: int = setting(
        20, help="Likeliest tokens whose values are asked; others keep their logit.", least=1
    )

    @property
    def betas(self) -> tuple[float, ...]:
        """The weight of each value."""
        texts = self.value_beta or ("1",)
        return tuple(map(float, texts * len(self.value or ()) if len(texts) == 1 else texts))

    def check(self) -> None:
        """Weights are finite numbers, one or as many as values."""
        for text in self.value_beta or ():
            try:
                finite = math.isfinite(float(text))
            except ValueError:
                finite = False
            if not finite:
                raise ConfigError(f"value_beta has {text!r}, expected numbers such as 3 or 0.5")
        if self.value is None:
            for name in ("value_beta", "value_top_k"):
                if getattr(self, name) != getattr(ValueConfig, name):
                    raise ConfigError(
                        f"{name} is set while value is not: set value, or leave it out"
                    )
        elif len(self.betas) != len(self.value):
            raise ConfigError(
                f"value_beta has {len(self.betas)} numbers and value {len(self.value)} folders, "
                "expected one number, or one for each"
            )
