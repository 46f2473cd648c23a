"""Every setting of every command: its name, default, bounds and meaning, and nowhere else.

Option names and YAML keys are the field names. A command's settings are the union of the groups it
inherits, so a function can ask for just the group it needs.
"""

from dataclasses import dataclass
from typing import Literal

from fpo_core.errors import ConfigError
from fpo_core.settings import Settings, setting


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
        None, help="Token budget of the prompt alone; by default half of max_seq_length.", least=1
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

    learning_rate: float | None = setting(
        None, help="Peak learning rate; by default 1e-4 for adapters, 1e-5 for full.", above=0.0
    )
    weight_decay: float = setting(0.0, help="AdamW's decoupled weight decay.", least=0.0)
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
        return 1e-4 if fine_tune_type == "lora" else 1e-5


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
    val_pairs: int = setting(256, help="Validation pairs scored each time.", least=1)
    save_every: int | None = setting(
        None, help="Steps between checkpoints; by default at each validation.", least=1
    )
    nonfinite_limit: int = setting(
        5, help="Steps in a row with a non-finite loss or gradient that end the run.", least=1
    )
    step0_pairs: int = setting(
        16, help="Pairs on which the stored reference is checked before step 1; 0 is none.", least=0
    )

    def check(self) -> None:
        """Length is given in epochs or in steps."""
        if self.epochs is not None and self.iters is not None:
            raise ConfigError(
                "epochs and iters are both set, expected one of them: remove the other"
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
):
    """Settings of `fpo train`."""

    def check(self) -> None:
        """A positive alpha needs an autoencoder."""
        if self.alpha > 0 and self.sae is None:
            raise ConfigError(
                "sae is not set while alpha is above 0: give --sae FILE (from `fpo convert sae`), "
                "or --alpha 0 for length-normalised DPO"
            )
