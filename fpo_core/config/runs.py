"""The settings of the commands that run a model."""

from dataclasses import dataclass
from typing import Literal

from fpo_core.config.backends import BackendName
from fpo_core.config.fields import like, setting
from fpo_core.config.inputs import (
    BackendConfig,
    DataConfig,
    DeviceName,
    DtypeName,
    FeatureConfig,
    ModelConfig,
    SaeConfig,
)
from fpo_core.config.judging import JudgeConfig
from fpo_core.config.objective import ConstraintConfig, ObjectiveConfig
from fpo_core.config.objective_table import OBJECTIVES
from fpo_core.config.online import OnlineConfig
from fpo_core.config.presets import PresetConfig
from fpo_core.config.training import (
    AdapterConfig,
    LoopConfig,
    MeasureConfig,
    OptimiserConfig,
    PublishConfig,
    ReferenceConfig,
    ReportedConfig,
    SamplerConfig,
    SamplingConfig,
    StepConfig,
    ValueConfig,
)
from fpo_core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ReferenceRunConfig(ModelConfig, DataConfig, SaeConfig, ReferenceConfig, StepConfig):
    """Settings of `reference`."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    ModelConfig,
    PresetConfig,
    DataConfig,
    FeatureConfig,
    ObjectiveConfig,
    ConstraintConfig,
    ReferenceConfig,
    StepConfig,
    AdapterConfig,
    OptimiserConfig,
    LoopConfig,
    MeasureConfig,
    ReportedConfig,
    PublishConfig,
    OnlineConfig,
    JudgeConfig,
):
    """Settings of `train`."""

    def check(self) -> None:
        """FPO needs an autoencoder."""
        if self.needs_features and self.sae is None:
            raise ConfigError(
                "sae is not set while alpha is above 0: set sae to a converted autoencoder, or "
                "objective to dpo-norm, which is fpo without its constraint"
            )
        if self.constraint_share is not None and (
            "alpha" not in self.coefficients or self.constraint_weight == 0
        ):
            raise ConfigError(
                "constraint_share is set, but there is no constraint whose alpha could be adapted: "
                "leave it out, or choose an objective with one"
            )
        for name in ("k", "normalize_d"):
            if self.sae is None and getattr(self, name) != getattr(ObjectiveConfig, name):
                raise ConfigError(f"{name} is set while sae is not: set sae too, or leave it out")
        self._check_gradients()
        self._check_online()
        self._check_shard()

    def _check_shard(self) -> None:
        """What a sharded model does not do is refused."""
        full = self.fine_tune_type == "full"
        reasons = {
            f"optimizer is {self.optimizer}": self.optimizer != "adamw",
            f"fine_tune_type is {self.fine_tune_type}": self.fine_tune_type not in ("lora", "full"),
            "freeze_a is set": self.freeze_a,
            "online is set": self.online is not None,
            "degree_weight is set": bool(self.degree_weight),
            "compile is set": self.compile,
            f"objective {self.objective} on the KL with fine_tune_type full": full
            and self.needs_kl,
        }
        for reason, applies in reasons.items():
            if self.shard and applies:
                raise ConfigError(
                    f"shard is set, but {reason}, which a sharded model does not do: leave one of "
                    "them out"
                )

    def _check_online(self) -> None:
        """SAIL's terms are of −log σ(u); a judge must have something to judge."""
        route = self.route
        if self.judge is not None and (route is None or not route.judged):
            raise ConfigError(
                f"judge is set, but online is {self.online or 'not'}, which asks nobody: leave it "
                "out, or set online to plain or dpr"
            )
        if self.sampler != "backend" and self.fine_tune_type != "lora":
            raise ConfigError(
                f"sampler is {self.sampler}, which follows training through LoRA adapters alone, "
                f"but fine_tune_type is {self.fine_tune_type}: set lora, or leave sampler out"
            )
        if self.online is not None and self.degree_weight:
            raise ConfigError(
                "degree_weight is set, but completions of online have no words removed: leave out "
                "one of them"
            )
        if route is None or not (route.weight or route.own_labels):
            return
        reasons = {
            f"link is {self.link_name or 'none'}": self.link_name != "logistic",
            "label_smoothing is set": self.label_smoothing > 0,
            f"optimizer is {self.optimizer}": self.zeroth_order,
        }
        for reason, applies in reasons.items():
            if applies:
                raise ConfigError(
                    f"{reason}, but SAIL's terms of online {self.online} are gradients of the "
                    "logistic loss: set online to plain, or leave it out"
                )

    def _check_gradients(self) -> None:
        """What acts on gradients alone is refused where there are none."""
        if self.freeze_a and self.weight_decay:
            raise ConfigError(
                f"weight_decay is {self.weight_decay} while freeze_a is set, and would shrink A "
                "all the same: leave one of them out"
            )
        acting = ("dropout", "grad_checkpoint", "straight_through", "constraint_share", "freeze_a")
        for name in (*acting, "degree_weight"):
            if self.zeroth_order and getattr(self, name):
                raise ConfigError(
                    f"{name} is set, but the optimizer {self.optimizer} only scores, without a "
                    "backward pass: leave it out"
                )


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig(BackendConfig, ObjectiveConfig):
    """Settings of `quickstart`."""

    output: str = like(LoopConfig, "output", default="fpo-quickstart")
    max_rows: int | None = like(DataConfig, "max_rows")
    learning_rate: float | None = like(OptimiserConfig, "learning_rate", help="Peak learning rate.")
    iters: int | None = like(LoopConfig, "iters", help="Optimiser steps.")
    batch_size: int = like(LoopConfig, "batch_size")
    samples: int = setting(100, help="Held-out prompts whose completions are judged.", least=1)


@dataclass(frozen=True, kw_only=True)
class CompareConfig(JudgeConfig):
    """Settings of `compare`."""

    output: str = like(
        LoopConfig, "output", default="fpo-compare", help="Folder for the runs and the tables."
    )
    settings: str | None = setting(
        None,
        help="YAML file of the training settings that all runs share; by default those of the "
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
    temperature: float = like(SamplingConfig, "temperature")
    report: bool = like(ReportedConfig, "report")
    backend: BackendName = like(BackendConfig, "backend")
    device: DeviceName = like(BackendConfig, "device")
    dtype: DtypeName = like(BackendConfig, "dtype")

    def check(self) -> None:
        """Objectives are known, seeds are numbers, samples are judged."""
        if self.judge is not None and not self.samples:
            raise ConfigError("judge is set while samples is 0: set samples, or leave judge out")
        for name in self.objectives or ():
            if name not in OBJECTIVES:
                raise ConfigError(
                    f"objectives names {name!r}, expected some of {', '.join(OBJECTIVES)}"
                )
        for seed in self.seeds:
            if not seed.isdecimal():
                raise ConfigError(f"seeds names {seed!r}, expected whole numbers from 0")
        named = {"objectives": self.objectives or (), "seeds": [int(seed) for seed in self.seeds]}
        for name, values in named.items():
            # A run that counts twice would pass for several that agree, with a spread of 0.
            if len(set(values)) < len(values):
                raise ConfigError(f"{name} names one twice, expected each once: remove the other")


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
    JudgeConfig,
    ValueConfig,
):
    """Settings of `evaluate`."""

    base: str | None = setting(
        None, help="Another model of the same shape to compare with, such as the one it came from."
    )
    base_adapter: str | None = setting(
        None, help="Adapter of the model to compare with, in place of the bare model."
    )
    goal: float | None = setting(
        None, help="Score that every prompt asks for, of a model trained on augmented data."
    )
    samples: int = setting(
        16, help="Completions sampled to measure diversity; 0 samples none.", least=0
    )

    def check(self) -> None:
        """Adapters are compared on one model, whole models with each other; samples are judged."""
        if self.judge is not None and not self.samples:
            raise ConfigError("judge is set while samples is 0: set samples, or leave judge out")
        for name in ("adapter", "base_adapter"):
            if getattr(self, name) is not None and self.base is not None:
                raise ConfigError(
                    f"{name} and base are both set, expected one: adapters are compared on the "
                    "model that they are of, so fuse one to compare it with another model"
                )
        if self.value is not None and not self.samples:
            raise ConfigError("value is set while samples is 0: set samples, or leave value out")
        if self.value is not None and self.base is not None:
            raise ConfigError(
                "value and base are both set, expected one: values are adapters of the model, and "
                "base compares whole models"
            )


@dataclass(frozen=True, kw_only=True)
class PromptConfig(ModelConfig, SamplingConfig):
    """What a model answers, and how often."""

    prompts: str | None = setting(
        None,
        help="File of prompts to answer in place of one: .jsonl or .json with `prompt`, or one a "
        "line.",
    )
    system_prompt: str | None = setting(None, help="A system message before the prompt.")
    ignore_chat_template: bool = setting(
        False, help="Continue the prompt as plain text, even where there is a chat template."
    )
    goal: float | None = like(
        EvalConfig,
        "goal",
        help="Score to ask for, of a model trained on augmented data; most often the greatest.",
    )
    samples: int = setting(1, help="How many completions of a prompt.", least=1)
    batch_size: int = setting(16, help="Prompts of a file answered at once.", least=1)

    def check(self) -> None:
        """A system message needs a chat template."""
        if self.system_prompt is not None and self.ignore_chat_template:
            raise ConfigError(
                "system_prompt is set while ignore_chat_template is: remove one of them"
            )


@dataclass(frozen=True, kw_only=True)
class AnswerConfig(PromptConfig, SamplerConfig, ValueConfig):
    """What a model answers, and what draws and weighs its tokens."""

    def check(self) -> None:
        """Values weigh the tokens of the backend's own sampling."""
        if self.value is not None and self.sampler != "backend":
            raise ConfigError(
                f"value is set while sampler is {self.sampler}, which cannot ask values of tokens: "
                "leave one of them out"
            )


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(AnswerConfig):
    """Settings of `generate`."""

    prompt: str | None = setting(
        None,
        help="What to answer or to continue; - reads standard input, less one newline at its end.",
    )
    out: str | None = setting(
        None, help="JSONL file for answers to a file; one that is begun is gone on with."
    )

    def check(self) -> None:
        """One prompt or a file of them, whose answers have a place."""
        if (self.prompt is None) == (self.prompts is None):
            raise ConfigError(
                "prompt and prompts are both set, expected one of them: remove the other"
                if self.prompt is not None
                else "prompt is not set, expected what to answer: set it, or prompts to a file"
            )
        if (self.prompts is None) != (self.out is None):
            name, other = ("prompts", "out") if self.out is None else ("out", "prompts")
            raise ConfigError(f"{name} is set while {other} is not: set {other} too")


@dataclass(frozen=True, kw_only=True)
class SampleConfig(AnswerConfig, JudgeConfig):
    """Settings of `sample`."""

    prompts: str = setting(
        help="File of prompts to answer: .jsonl or .json with `prompt`, or one a line."
    )
    output: str = setting(
        help="JSONL file of pairs to write; the samples stay beside it, where a stopped run goes "
        "on."
    )
    samples: int = setting(
        4, help="How many completions of a prompt; the best and the worst make a pair.", least=2
    )
    cache: str | None = like(DataConfig, "cache", help="Folder of caches.")

    def check(self) -> None:
        """Samples of the likeliest tokens alone are all the same."""
        if self.temperature == 0:
            raise ConfigError(
                "temperature is 0, where all samples of a prompt are equal: set it above 0"
            )


@dataclass(frozen=True, kw_only=True)
class ValueTrainConfig(PromptConfig, JudgeConfig, AdapterConfig, OptimiserConfig):
    """Settings of `train_value`."""

    prompts: str = like(SampleConfig, "prompts")
    output: str = setting(
        help="Folder for the value function, and for the samples, where a stopped run goes on."
    )
    samples: int = setting(8, help="How many completions of a prompt.", least=1)
    max_tokens: int = setting(
        256,
        help="Most tokens of a completion; those that do not end by then teach nothing.",
        least=1,
    )
    value_lambda: float = setting(
        0.95,
        help="λ of TD(λ): 1 learns from final rewards alone, less from the values of later tokens.",
        least=0.0,
        most=1.0,
    )
    value_batch: int = setting(32, help="Samples per optimiser step.", least=1)
    epochs: float = setting(2.0, help="Passes over the samples.", above=0.0)
    tokens_per_batch: int = like(ReferenceConfig, "tokens_per_batch")
    valid_fraction: float = setting(
        0.1,
        help="Share of prompts held out, on whose samples the values are compared with rewards.",
        least=0.0,
        most=0.5,
    )
    cache: str | None = like(DataConfig, "cache", help="Folder of caches.")

    def check(self) -> None:
        """A value function is an adapter of the model, learnt with gradients from what varies."""
        if self.fine_tune_type != "lora":
            raise ConfigError(
                f"fine_tune_type is {self.fine_tune_type}, but a value function shares the model's "
                "weights and is an adapter of it: set lora"
            )
        if self.zeroth_order:
            raise ConfigError(
                f"optimizer is {self.optimizer}, which takes no gradients: a value function needs "
                "one that does, such as adamw"
            )
        if self.temperature == 0:
            raise ConfigError(
                "temperature is 0, where all samples of a prompt are equal: set it above 0"
            )


@dataclass(frozen=True, kw_only=True)
class ReportConfig(BackendConfig):
    """Settings of `report`."""

    runs: tuple[str, ...] = setting(
        help="Output folders of training, or one of a comparison: several are compared."
    )
    output: str | None = setting(
        None,
        help="File to write; by default report.html in the run's folder, or here for several runs.",
    )
    shown_pairs: int | None = setting(
        None,
        help="Held-out pairs to show; by default those that the run left, else "
        f"{ReportedConfig.shown_pairs}. Another number, or a backend, reads the model again.",
        least=1,
    )
    shown_features: int | None = setting(
        None,
        help="Features to show; by default those that the run left, else "
        f"{ReportedConfig.shown_features}.",
        least=1,
    )


@dataclass(frozen=True, kw_only=True)
class ChatConfig(ModelConfig, SaeConfig, SamplingConfig):
    """Settings of `chat`."""

    other_adapter: str | None = setting(
        None,
        help="Adapter of the model beside this one, for /compare; by default the bare model.",
    )
    system_prompt: str | None = like(GenerateConfig, "system_prompt")
    max_tokens: int = like(SamplingConfig, "max_tokens", default=256)
    top_features: int = setting(8, help="Features of a reply that /features shows.", least=1)


@dataclass(frozen=True, kw_only=True)
class ServeConfig(ModelConfig):
    """Settings of `serve`."""

    host: str = setting("127.0.0.1", help="Address to listen at.")
    port: int = setting(8000, help="Port to listen at.", least=1, most=65535)


@dataclass(frozen=True, kw_only=True)
class FuseConfig(ModelConfig, PublishConfig):
    """Settings of `fuse`."""

    adapter: str | None = like(ModelConfig, "adapter", help="Adapter folder to merge.")
    out: str = setting(help="The folder to write.")
    save_dtype: Literal["auto", "base", "float32", "float16", "bfloat16"] = setting(
        "auto",
        help="Precision of the written weights: base is the base's, of a quantised one that of its "
        "scales; auto is that too, but float32 where rounding would lose over 5% of the adapter.",
    )
