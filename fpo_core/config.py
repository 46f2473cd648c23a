"""Every setting of every command: its name, default, bounds and meaning, and nowhere else.

Option names and YAML keys are the field names. A command's settings are the union of the groups it
inherits, so a function can ask for just the group it needs.
"""

import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

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
class SaeConfig(Settings):
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
class FeatureConfig(SaeConfig):
    """Which of its features count."""

    feature_weights: str | None = setting(
        None,
        help="File of weighted features that D compares in place of the top k, made by "
        "`fpo sae features`.",
    )

    def check(self) -> None:
        """Weights are nothing without what they are of."""
        if self.feature_weights is not None and self.sae is None:
            raise ConfigError(
                "feature_weights is set while sae is not: give --sae FILE too, or leave it out"
            )


ObjectiveName = Literal["fpo", "dpo-norm", "dpo", "simpo", "simpo-kl", "tdpo1", "tdpo2", "discopop"]
Coefficient = Literal["alpha", "beta", "gamma", "discopop_tau"]
COEFFICIENTS: dict[ObjectiveName, dict[Coefficient, float]] = {
    "fpo": {"beta": 0.1, "alpha": 0.5},
    "dpo-norm": {"beta": 0.1},
    "dpo": {"beta": 0.1},
    "simpo": {"beta": 2.0, "gamma": 0.5},
    "simpo-kl": {"beta": 2.0, "gamma": 0.5, "alpha": 0.5},
    "tdpo1": {"beta": 0.1},
    "tdpo2": {"beta": 0.1, "alpha": 0.5},
    "discopop": {"beta": 0.1, "discopop_tau": 0.05},
}
"""The coefficients that each objective has, and their defaults: those of the papers."""


def _default(name: Coefficient) -> str:
    """The defaults of a coefficient in words, for its help."""
    values: dict[float, list[str]] = {}
    for objective, row in COEFFICIENTS.items():
        if name in row:
            values.setdefault(row[name], []).append(objective)
    return "; ".join(f"{value:g} for {', '.join(names)}" for value, names in values.items())


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(Settings):
    """The loss −log σ(LPD − margin − δ) (eq. 8); FPO's: eq. 11."""

    objective: ObjectiveName = setting(
        "fpo", help="Row of the paper's table 1 to minimise; docs/method.md has their formulas."
    )
    alpha: float | None = setting(
        None,
        help="Weight of the constraint: fpo's on features, the others' on KL; fpo at 0 is "
        f"dpo-norm. By default {_default('alpha')}.",
        least=0.0,
    )
    beta: float | None = setting(
        None,
        help=f"Scale of the margin inside the sigmoid. By default {_default('beta')}.",
        above=0.0,
    )
    gamma: float | None = setting(
        None,
        help=f"Margin to reach in place of the reference's. By default {_default('gamma')}.",
        least=0.0,
    )
    discopop_tau: float | None = setting(
        None,
        help=f"Temperature between DiscoPOP's two losses. By default {_default('discopop_tau')}.",
        above=0.0,
    )
    label_smoothing: float = setting(
        0.0, help="Share of pairs taken to be labelled the wrong way.", least=0.0, most=0.49
    )
    rpo_alpha: float = setting(
        0.0,
        help="Weight of an added −log π(chosen) / |chosen| (RPO's term of supervised training).",
        least=0.0,
    )
    stop_gradient: bool = setting(
        True,
        help="Stop the gradient of the chosen side's drift; off, the loss rewards that drift.",
    )
    k: int = setting(50, help="Features of policy and of reference that D compares.", least=1)
    normalize_d: bool = setting(
        False, help="Divide D by the mean squared reference feature, so alpha carries between SAEs."
    )
    straight_through: bool = setting(
        False,
        help="Let D's gradient reach features that the policy switched off in a whole completion.",
    )

    def coefficient(self, name: Coefficient) -> float:
        """A coefficient in force: as set, else the objective's default, 0 where it has none."""
        given = getattr(self, name)
        return COEFFICIENTS[self.objective].get(name, 0.0) if given is None else given

    @classmethod
    def fitting(cls, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Coefficients were chosen for an objective: with another one its own defaults hold."""
        meant = defaults.get("objective", "fpo")
        if given.get("objective", meant) == meant:
            return dict(defaults)
        return {k: v for k, v in defaults.items() if k not in typing.get_args(Coefficient)}

    def check(self) -> None:
        """What is set must take part: an objective ignores nothing in silence."""
        own = COEFFICIENTS[self.objective]
        for name in typing.get_args(Coefficient):
            if getattr(self, name) is not None and name not in own:
                takers = ", ".join(key for key, row in COEFFICIENTS.items() if name in row)
                raise ConfigError(
                    f"{name} is set, but the objective {self.objective} has none: leave it out, or "
                    f"choose an --objective that has it ({takers})"
                )
        if not self.stop_gradient and "alpha" not in own:
            raise ConfigError(
                f"stop_gradient is off, but the objective {self.objective} stops no gradient: "
                "leave it out"
            )
        if self.straight_through and self.objective != "fpo":
            raise ConfigError(
                f"straight_through is set, but the objective {self.objective} has no D: leave it "
                "out"
            )
        if self.label_smoothing and self.objective == "discopop":
            raise ConfigError(
                "label_smoothing is set, but discopop has a loss of its own: leave it out"
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
class StepConfig(Settings):
    """How a forward pass is computed; the numbers are the same either way."""

    plain: bool = setting(
        False,
        help="Run every pair's prompt twice and keep all logits: the slow path, to compare with.",
    )
    logits_budget: int = setting(
        256, help="MiB that logits, and an autoencoder's features, may take at once.", least=1
    )


@dataclass(frozen=True, kw_only=True)
class AdapterConfig(Settings):
    """What is trained."""

    fine_tune_type: Literal["lora", "dora", "full"] = setting(
        "lora", help="Adapters of either kind, or the weights themselves."
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
        if self.fine_tune_type == "dora" and self.dropout > 0:
            raise ConfigError(
                f"dropout is {self.dropout} while fine_tune_type is dora: PEFT and mlx-lm drop "
                "different inputs there, so set dropout to 0"
            )


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
    preflight: bool = setting(
        True, help="Try the largest batches before anything else, for memory, time and disk."
    )
    dry_run: bool = setting(False, help="Only that: nothing is trained or written to the output.")
    save_total_limit: int = setting(2, help="Checkpoints kept, the newest ones.", least=1)
    resume: bool = setting(
        False, help="Go on from the newest checkpoint in --output, given the same settings."
    )
    allow_change: tuple[str, ...] | None = setting(
        None, help="Settings that may differ from the checkpoint's under --resume, comma-separated."
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
class ReferenceRunConfig(ModelConfig, DataConfig, SaeConfig, ReferenceConfig, StepConfig):
    """Settings of `fpo reference`."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    ModelConfig,
    DataConfig,
    FeatureConfig,
    ObjectiveConfig,
    ReferenceConfig,
    StepConfig,
    AdapterConfig,
    OptimiserConfig,
    LoopConfig,
    MeasureConfig,
):
    """Settings of `fpo train`."""

    def check(self) -> None:
        """FPO needs an autoencoder."""
        if self.objective == "fpo" and self.coefficient("alpha") > 0 and self.sae is None:
            raise ConfigError(
                "sae is not set while alpha is above 0: give --sae FILE (from `fpo convert sae`), "
                "or --objective dpo-norm, which is fpo without its constraint"
            )
        for name in ("k", "normalize_d"):
            if self.sae is None and getattr(self, name) != getattr(ObjectiveConfig, name):
                raise ConfigError(
                    f"{name} is set while sae is not: give --sae too, or leave it out"
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
class CompareConfig(Settings):
    """Settings of `fpo compare`."""

    output: str = like(
        LoopConfig, "output", default="fpo-compare", help="Folder for the runs and the tables."
    )
    settings: str | None = setting(
        None,
        help="YAML file of `fpo train`'s settings, which all runs share; by default those of the "
        "quickstart on its world, whose oracle judges the samples.",
    )
    objectives: tuple[str, ...] | None = setting(
        None, help="Objectives to compare, comma-separated; by default all that are possible."
    )
    grid: tuple[str, ...] | None = setting(
        None,
        help="Settings to vary, comma-separated, such as beta=1:10,fpo.alpha=0.5:2: each value "
        "with each, a setting behind an objective's name for that alone.",
    )
    seeds: tuple[str, ...] = setting(
        ("0",), help="Seeds of every run, comma-separated: the same batches for all objectives."
    )
    eval_pairs: int = setting(100, help="Held-out pairs measured at the end of a run.", least=1)
    samples: int = setting(
        64, help="Held-out prompts whose completions are measured; 0 samples none.", least=0
    )
    max_tokens: int = like(SamplingConfig, "max_tokens")
    backend: Literal["auto", "mlx", "torch"] = like(BackendConfig, "backend")
    device: Literal["auto", "cpu", "cuda", "mps", "gpu"] = like(BackendConfig, "device")
    dtype: Literal["auto", "float32", "bfloat16"] = like(BackendConfig, "dtype")

    def check(self) -> None:
        """Objectives are known, seeds are numbers."""
        for name in self.objectives or ():
            if name not in COEFFICIENTS:
                raise ConfigError(
                    f"objectives names {name!r}, expected some of {', '.join(COEFFICIENTS)}"
                )
        for seed in self.seeds:
            if not seed.isdecimal():
                raise ConfigError(f"seeds names {seed!r}, expected whole numbers from 0")


@dataclass(frozen=True, kw_only=True)
class EvalConfig(
    ModelConfig,
    DataConfig,
    FeatureConfig,
    ObjectiveConfig,
    ReferenceConfig,
    StepConfig,
    MeasureConfig,
    SamplingConfig,
):
    """Settings of `fpo eval`."""

    base: str | None = setting(
        None, help="Another model of the same shape to compare with, such as the one it came from."
    )
    base_adapter: str | None = setting(
        None, help="Adapter of --model to compare with, in place of the bare model."
    )
    samples: int = setting(
        16, help="Completions sampled to measure diversity; 0 samples none.", least=0
    )

    def check(self) -> None:
        """Adapters are compared on one model, whole models with each other."""
        for name in ("adapter", "base_adapter"):
            if getattr(self, name) is not None and self.base is not None:
                raise ConfigError(
                    f"{name} and base are both set, expected one: adapters are compared on the "
                    "model that they are of, so fuse one to compare it with another model"
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
class FuseConfig(ModelConfig):
    """Settings of `fpo fuse`."""

    adapter: str | None = like(ModelConfig, "adapter", help="Adapter folder to merge.")
    out: str = setting(help="The folder to write.")
    save_dtype: Literal["base", "float32", "float16", "bfloat16"] = setting(
        "base",
        help="Precision of the written weights; that of a quantised base is that of its scales.",
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
    out: str = setting(help="The safetensors file to write, or the folder for sae-lens.")
    to: Literal["fpo", "sae-lens"] = setting(
        "fpo", help="Make the file that FPO reads, or of such a file a folder that SAELens opens."
    )
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

    def check(self) -> None:
        """An export is of the file as it stands."""
        for field in fields(ConvertConfig):
            changed = getattr(self, field.name) != field.default
            if self.to == "sae-lens" and changed and field.name not in ("source", "out", "to"):
                raise ConfigError(
                    f"{field.name} is set and to is sae-lens, which writes the file as it stands: "
                    f"leave {field.name} out, or give it when converting the original"
                )


@dataclass(frozen=True, kw_only=True)
class ConvertAdapterConfig(NoModelConfig):
    """Settings of `fpo convert adapter`."""

    source: str = setting(help="Folder of an adapter that PEFT or mlx-lm wrote.")
    out: str = setting(help="The folder to write.")
    to: Literal["peft", "mlx", "both"] = setting("both", help="Which library shall open it.")
    model: str | None = setting(
        None,
        help="Folder or hub name of the base model, whose config.json is read; by default the "
        "folder that the adapter names, where there is one.",
    )


@dataclass(frozen=True, kw_only=True)
class SaeInfoConfig(NoModelConfig):
    """Settings of `fpo sae info`."""

    file: str = setting(help="An autoencoder made by `fpo convert sae`.")
    verify: bool = setting(False, help="Read all weights and compare their hash.")


@dataclass(frozen=True, kw_only=True)
class SaeListConfig(NoModelConfig):
    """Settings of `fpo sae list`."""

    model: str = like(ModelConfig, "model", help="Hub name or folder of the model to align.")
    num_layers: int = like(AdapterConfig, "num_layers")


@dataclass(frozen=True, kw_only=True)
class SaeFeaturesConfig(ModelConfig, SaeConfig):
    """Settings of `fpo sae features`."""

    positive: str = setting(
        help="Texts in which the features fire more: .jsonl with `text`, or one text a line."
    )
    negative: str = setting(help="Texts in which they fire less.")
    out: str | None = setting(None, help="File of feature weights to write.")
    top: int = setting(20, help="Features to show, and to weight in the file.", least=1)
    absolute: bool = setting(
        False, help="Take features of either direction: those that fire less on the positive too."
    )
    weight: float = setting(1.0, help="Weight of each feature in the file.", above=0.0)
    max_seq_length: int = like(DataConfig, "max_seq_length", help="Texts are cut at this length.")
    tokens_per_batch: int = like(ReferenceConfig, "tokens_per_batch")

    def check(self) -> None:
        """Features are an autoencoder's."""
        if self.sae is None:
            raise ConfigError("sae is not set: give --sae FILE (from `fpo convert sae`)")


@dataclass(frozen=True, kw_only=True)
class SaeCheckConfig(BackendConfig):
    """Settings of `fpo sae check`."""

    sae: str = setting(help="Autoencoder made by `fpo convert sae`, with its decoder.")
    model: str = like(ModelConfig, "model")
    data: str = like(DataConfig, "data")
    hook: str | None = like(SaeConfig, "hook")
    rows: int = setting(64, help="How many pairs to read, each as two texts.", least=1)
    max_seq_length: int = like(DataConfig, "max_seq_length", default=512)
    revision: str | None = like(ModelConfig, "revision")
    trust_remote_code: bool = like(ModelConfig, "trust_remote_code")


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(Settings):
    """Settings of `fpo doctor`."""

    backend: Literal["auto", "mlx", "torch"] = setting(
        "auto", help="Look at this backend alone, and fail where it is not installed."
    )
    device: Literal["auto", "cpu", "cuda", "mps", "gpu"] = like(
        BackendConfig, "device", help="Device of the self-test."
    )
    self_test: bool = setting(
        False, help="Replay golden values, a gradient and three training steps on the device."
    )
    cache: str | None = like(DataConfig, "cache")
