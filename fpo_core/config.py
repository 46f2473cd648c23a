"""Every setting of every command: its name, default, bounds and meaning, and nowhere else.

Option names and YAML keys are the field names. A command's settings are the union of the groups it
inherits, so a function can ask for just the group it needs.
"""

from dataclasses import dataclass
from typing import Literal

from fpo_core.errors import ConfigError
from fpo_core.settings import Settings, like, setting


@dataclass(frozen=True, kw_only=True)
class BackendConfig(Settings):
    """Where to compute."""

    backend: Literal["auto", "mlx", "torch"] = setting(
        "auto", help="mlx on Metal, torch on CUDA, else torch."
    )
    device: Literal["auto", "cpu", "cuda", "mps", "gpu"] = setting(
        "auto", help="Device of the backend; gpu is Metal (or CUDA) under MLX."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", help="Compute precision: bfloat16 on a GPU, float32 on a CPU, unless set."
    )
    seed: int = setting(0, help="Seed of the data order, adapters, dropout and samples.", least=0)


@dataclass(frozen=True, kw_only=True)
class ModelConfig(BackendConfig):
    """Which model, and where it starts."""

    model: str = setting(help="Folder or hub name of the model.")
    adapter: str | None = setting(None, help="Adapter folder that the model starts from.")
    revision: str | None = setting(None, help="Hub revision of the model.")
    trust_remote_code: bool = setting(False, help="Run model code that comes with the checkpoint.")


@dataclass(frozen=True, kw_only=True)
class DataConfig(Settings):
    """Which pairs, and how they become tokens."""

    data: str = setting(
        help="JSONL, JSON or Parquet file, folder with train/valid files, or hub name."
    )
    valid_fraction: float = setting(
        0.0,
        help="Share of prompts held out where there is no validation file.",
        least=0.0,
        most=0.5,
    )
    max_seq_length: int = setting(
        1024, help="Token budget of prompt and completion together.", least=8
    )
    max_prompt_length: int | None = setting(
        None,
        help="Hard cap on the prompt; by default it is cut only where the pair is too long, and "
        "never below half of max_seq_length.",
        least=1,
    )
    strict: bool = setting(False, help="Refuse data with any row that would be dropped or changed.")
    max_rows: int | None = setting(None, help="Use only the first rows of each split.", least=1)
    cache: str | None = setting(
        None, help="Folder for tokenised rows; by default ~/.cache/fpo-mlx, or $FPO_CACHE."
    )


@dataclass(frozen=True, kw_only=True)
class FeatureConfig(Settings):
    """Which autoencoder measures the drift of features."""

    sae: str | None = setting(None, help="Autoencoder made by `fpo convert sae`.")
    hook: str | None = setting(
        None, help="Where the autoencoder reads the model; by default as its file says."
    )

    def check(self) -> None:
        """A hook is nothing without what reads it."""
        if self.hook is not None and self.sae is None:
            raise ConfigError("hook is set while sae is not: give --sae FILE too, or leave it out")


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(Settings):
    """FPO's loss (eq. 11): u = β[(m_w − m_l) − (r_w − r_l) − α(D_l − sg(D_w))]."""

    alpha: float = setting(
        0.5, help="Weight of the feature constraint; 0 is length-normalised DPO.", least=0.0
    )
    beta: float = setting(0.1, help="Scale of the margin inside the sigmoid.", above=0.0)
    k: int = setting(
        50, help="Features of policy and of reference that the constraint compares.", least=1
    )
    stop_gradient: bool = setting(
        True,
        help="Stop the gradient of the chosen side's drift; off, the loss rewards that drift.",
    )
    normalize_d: bool = setting(
        False, help="Divide D by the mean squared reference feature, so alpha carries between SAEs."
    )


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
class AdapterConfig(Settings):
    """What is trained."""

    fine_tune_type: Literal["lora", "full"] = setting(
        "lora", help="Adapters, or the weights themselves."
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

    def check(self) -> None:
        """Layers are all, or at least one."""
        if self.num_layers == 0:
            raise ConfigError("num_layers is 0, expected -1 for all blocks or a positive number")


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig(Settings):
    """How a step is taken."""

    optimizer: Literal["adamw", "adafactor", "lion"] = setting(
        "adamw",
        help="Optimiser of the framework; torch has no lion. Adafactor's rate is relative to the "
        "size of each weight.",
    )
    learning_rate: float | None = setting(
        None,
        help="Peak learning rate; by default, for adapters and for full, 1e-4 and 1e-5 (adamw), "
        "1e-2 and 1e-3 (adafactor), 3e-5 and 3e-6 (lion).",
        above=0.0,
    )
    weight_decay: float = setting(0.0, help="Decoupled weight decay.", least=0.0)
    warmup: float = setting(
        0.1, help="Warm-up: a share of the steps below 1, a number of steps from 1 on.", least=0.0
    )
    schedule: Literal["constant", "cosine", "linear"] = setting(
        "cosine", help="Learning rate after the warm-up."
    )
    max_grad_norm: float = setting(1.0, help="Gradients are clipped to this norm.", above=0.0)

    def peak_learning_rate(self, fine_tune_type: str) -> float:
        """The learning rate after warm-up, its default depending on what is trained."""
        if self.learning_rate is not None:
            return self.learning_rate
        rates = {"adamw": (1e-4, 1e-5), "adafactor": (1e-2, 1e-3), "lion": (3e-5, 3e-6)}
        return rates[self.optimizer][fine_tune_type == "full"]

    def check(self) -> None:
        """What the frameworks mean by Adafactor's weight decay differs."""
        if self.optimizer == "adafactor" and self.weight_decay:
            raise ConfigError(
                f"weight_decay is {self.weight_decay} while optimizer is adafactor, expected 0: "
                "MLX and torch decay differently under it"
            )


@dataclass(frozen=True, kw_only=True)
class LoopConfig(Settings):
    """How long a run is, and what it leaves behind."""

    output: str = setting(help="Folder for the adapter or model, checkpoints and logs.")
    batch_size: int = setting(4, help="Pairs per forward pass.", least=1)
    grad_accumulation_steps: int = setting(1, help="Forward passes per step.", least=1)
    epochs: float | None = setting(
        None, help="Passes over the training pairs; by default 1.", above=0.0
    )
    iters: int | None = setting(None, help="Optimiser steps, in place of epochs.", least=1)
    grad_checkpoint: bool = setting(False, help="Recompute activations in backward to save memory.")
    steps_per_report: int = setting(10, help="Steps between lines of the log.", least=1)
    steps_per_eval: int | None = setting(
        None, help="Steps between validations; by default ten times in a run.", least=1
    )
    save_every: int | None = setting(
        None,
        help="Steps between checkpoints; by default at each validation. The best validation so far "
        "always makes one.",
        least=1,
    )
    save_total_limit: int = setting(2, help="Checkpoints kept, the newest ones.", least=1)
    resume: bool = setting(
        False, help="Go on from the newest checkpoint in --output, given the same settings."
    )
    allow_change: tuple[str, ...] | None = setting(
        None, help="Settings that may differ from the checkpoint's under --resume, comma-separated."
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
        if self.allow_change and not self.resume:
            raise ConfigError("allow_change is set while resume is not: give --resume too")
        unknown = sorted(self.allowed_changes() - {*self.names(), "processes"})
        if unknown:
            raise ConfigError(
                f"allow_change names {unknown[0]!r}, expected settings, such as learning_rate"
            )

    def allowed_changes(self) -> set[str]:
        """Settings that may differ from a checkpoint's."""
        return {name.replace("-", "_") for name in self.allow_change or ()}


@dataclass(frozen=True, kw_only=True)
class MeasureConfig(Settings):
    """What is measured on held-out data."""

    val_pairs: int = setting(256, help="Validation pairs scored each time.", least=1)
    text: str | None = setting(
        None, help="Texts to take perplexity on: .jsonl with `text`, or one text a line."
    )


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
class NoModelConfig(Settings):
    """No model runs here."""

    backend: Literal["auto", "mlx", "torch"] = setting(
        "auto", help="Only checked to be installed: this command runs no model."
    )


@dataclass(frozen=True, kw_only=True)
class ReferenceRunConfig(ModelConfig, DataConfig, FeatureConfig, ReferenceConfig):
    """Settings of `fpo reference`."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    ModelConfig,
    DataConfig,
    FeatureConfig,
    ObjectiveConfig,
    ReferenceConfig,
    AdapterConfig,
    OptimiserConfig,
    LoopConfig,
    MeasureConfig,
):
    """Settings of `fpo train`."""

    def check(self) -> None:
        """A positive alpha needs an autoencoder."""
        if self.alpha > 0 and self.sae is None:
            raise ConfigError(
                "sae is not set while alpha is above 0: give --sae FILE (from `fpo convert sae`), "
                "or --alpha 0 for length-normalised DPO"
            )


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig(BackendConfig, ObjectiveConfig):
    """Settings of `fpo quickstart`."""

    output: str = like(LoopConfig, "output", default="fpo-quickstart")
    max_rows: int | None = like(DataConfig, "max_rows")
    learning_rate: float | None = like(OptimiserConfig, "learning_rate", help="Peak learning rate.")
    iters: int | None = like(LoopConfig, "iters", help="Optimiser steps.")
    batch_size: int = like(LoopConfig, "batch_size")
    samples: int = setting(100, help="Held-out prompts whose completions are judged.", least=1)


@dataclass(frozen=True, kw_only=True)
class EvalConfig(
    ModelConfig,
    DataConfig,
    FeatureConfig,
    ObjectiveConfig,
    ReferenceConfig,
    MeasureConfig,
    SamplingConfig,
):
    """Settings of `fpo eval`."""

    base: str | None = setting(
        None, help="The model that --model was trained from, where that was full fine-tuning."
    )
    samples: int = setting(
        16, help="Completions sampled to measure diversity; 0 samples none.", least=0
    )

    def check(self) -> None:
        """A model is compared with the one under its adapter, or with another: not both."""
        if self.adapter is not None and self.base is not None:
            raise ConfigError(
                "adapter and base are both set, expected one: an adapter is compared with its own "
                "model, a fully trained model with --base"
            )


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(ModelConfig, SamplingConfig):
    """Settings of `fpo generate`."""

    prompt: str = setting(help="What to answer or to continue; - reads standard input.")
    system_prompt: str | None = setting(None, help="A system message before the prompt.")
    ignore_chat_template: bool = setting(
        False, help="Continue the prompt as plain text, even where there is a chat template."
    )
    samples: int = setting(1, help="How many completions.", least=1)

    def check(self) -> None:
        """A system message needs a chat template."""
        if self.system_prompt is not None and self.ignore_chat_template:
            raise ConfigError(
                "system_prompt is set while ignore_chat_template is: remove one of them"
            )


@dataclass(frozen=True, kw_only=True)
class InspectConfig(NoModelConfig, DataConfig):
    """Settings of `fpo data inspect`."""

    model: str = like(ModelConfig, "model", help="Folder or hub name of the model to tokenise for.")
    revision: str | None = like(ModelConfig, "revision")
    trust_remote_code: bool = like(ModelConfig, "trust_remote_code")
    seed: int = like(ModelConfig, "seed", help="Seed of --valid-fraction's choice of prompts.")
    split: Literal["train", "valid"] = setting("train", help="Which pairs to show.")
    start: int = setting(0, help="First pair to show, from 0.", least=0)
    rows: int = setting(1, help="How many pairs to show, padded together as a batch.", least=1)


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(NoModelConfig):
    """Settings of `fpo convert sae`."""

    source: str = setting(
        help="Folder or file, user/repo[:path][@revision] of the hub, or SAELens release/sae_id."
    )
    out: str = setting(help="The safetensors file to write.")
    format: str | None = setting(None, help="The source's format, where it is not recognised.")
    dtype: Literal["float32", "float16", "bfloat16"] = setting(
        "float32", help="Precision of the two weight matrices in the file."
    )
    encoder_only: bool = setting(False, help="Leave the decoder out: FPO does not need it.")
    verify: bool = setting(
        True, help="Compare the result with the source's own formula on random inputs."
    )
    norm_factor: float | None = setting(
        None, help="Factor on activations that the autoencoder was trained with.", above=0.0
    )
    centre: bool | None = setting(
        None, help="Whether activations were centred before training, where the source is silent."
    )
    k: int | None = setting(None, help="Active features of a top-k autoencoder.", least=1)
    hook: str | None = setting(
        None, help="Where the autoencoder reads the model, such as blocks.12.hook_resid_post."
    )
    model_name: str | None = setting(None, help="The model that the autoencoder was trained on.")
    untrained_tokens: tuple[str, ...] | None = setting(
        None, help="Tokens it was not trained on: bos, eos, pad, special or id:N, comma-separated."
    )


@dataclass(frozen=True, kw_only=True)
class SaeInfoConfig(NoModelConfig):
    """Settings of `fpo sae info`."""

    file: str = setting(help="An autoencoder made by `fpo convert sae`.")
    verify: bool = setting(False, help="Read all weights and compare their hash.")


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(Settings):
    """Settings of `fpo doctor`."""

    backend: Literal["auto", "mlx", "torch"] = setting(
        "auto", help="Look at this backend alone, and fail where it is not installed."
    )
    cache: str | None = like(DataConfig, "cache")
