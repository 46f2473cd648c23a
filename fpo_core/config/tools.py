"""The settings of the commands around them: data, conversion, autoencoders, diagnosis."""

from dataclasses import dataclass, fields
from typing import Literal

from fpo_core.config.backends import BackendName
from fpo_core.config.fields import Settings, like, setting
from fpo_core.config.inputs import BackendConfig, DataConfig, DeviceName, ModelConfig, SaeConfig
from fpo_core.config.training import AdapterConfig, ReferenceConfig
from fpo_core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class NoModelConfig(Settings):
    """No model runs here."""

    backend: BackendName = setting(
        "auto", help="Only checked to be installed: this command runs no model."
    )


@dataclass(frozen=True, kw_only=True)
class InspectConfig(NoModelConfig, DataConfig):
    """Settings of `inspect_data`."""

    model: str = like(ModelConfig, "model", help="Folder or hub name of the model to tokenise for.")
    revision: str | None = like(ModelConfig, "revision")
    trust_remote_code: bool = like(ModelConfig, "trust_remote_code")
    seed: int = like(
        ModelConfig, "seed", help="Seed of the choice of prompts that valid_fraction holds out."
    )
    split: Literal["train", "valid"] = setting("train", help="Which pairs to show.")
    start: int = setting(0, help="First pair to show, from 0.", least=0)
    rows: int = setting(1, help="How many pairs to show, padded together as a batch.", least=1)


GOAL_TEXT = "Answer with a quality of {goal} on a scale from {low} to {high}."


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(NoModelConfig):
    """Settings of `augment_data`."""

    data: str = like(DataConfig, "data")
    out: str = setting(help="Folder to write: train.jsonl, valid.jsonl and the goals' template.")
    columns: tuple[str, ...] | None = like(DataConfig, "columns")
    scores: tuple[str, ...] | None = setting(
        None,
        help="Columns with the scores of the chosen and the rejected completion, such as "
        "score_chosen,score_rejected; common names are recognised without it.",
    )
    judge: Literal["columns", "world"] = setting(
        "columns", help="Who scores: the columns, or the quickstart's oracle, spread on the scale."
    )
    scale: str = setting("1:10", help="Least and greatest score, such as 1:10.")
    swap: bool = setting(
        True,
        help="Prefer the rejected completion where its score is the goal; off is a control, in "
        "which the goal says nothing.",
    )
    goal_role: Literal["user", "system"] = setting(
        "user",
        help="Where the goal stands: before the user's turn, for every model, or as a system "
        "message, for chat templates that take one.",
    )
    goal_text: str = setting(
        GOAL_TEXT, help="How a prompt asks for a goal: text with {goal}, {low} and {high}."
    )
    valid_fraction: float = like(
        DataConfig,
        "valid_fraction",
        default=0.05,
        help="Share of prompts held out, before rows are doubled, where there is no validation "
        "file.",
    )
    max_rows: int | None = like(DataConfig, "max_rows")
    seed: int = like(BackendConfig, "seed", help="Seed of which prompts are held out.")

    def bounds(self) -> tuple[float, float]:
        """The least and the greatest score."""
        low, _, high = self.scale.partition(":")
        return float(low), float(high)

    def check(self) -> None:
        """The scale is two numbers, scores two columns, and the text has a place for the goal."""
        try:
            low, high = self.bounds()
        except ValueError:
            low, high = 1.0, 0.0
        if not -1e9 < low < high < 1e9:
            raise ConfigError(f"scale is {self.scale!r}, expected least and greatest, such as 1:10")
        if self.scores is not None and len(self.scores) != 2:
            raise ConfigError(
                f"scores names {len(self.scores)} columns, expected two: that of the chosen "
                "completion and that of the rejected one"
            )
        if self.scores is not None and self.judge != "columns":
            raise ConfigError(f"scores is set while judge is {self.judge}: remove one of them")
        if "{goal}" not in self.goal_text:
            raise ConfigError(
                f"goal_text is {self.goal_text!r}, expected {{goal}} in it: add it where the score "
                "belongs"
            )


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(NoModelConfig):
    """Settings of `convert_sae`."""

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
    """Settings of `convert_adapter`."""

    source: str = setting(help="Folder of an adapter that PEFT or mlx-lm wrote.")
    out: str = setting(help="The folder to write.")
    to: Literal["peft", "mlx", "both"] = setting("both", help="Which library shall open it.")
    model: str | None = setting(
        None,
        help="Folder or hub name of the base model, whose config.json is read; by default the "
        "folder that the adapter names, where there is one.",
    )


@dataclass(frozen=True, kw_only=True)
class ConvertGgufConfig(NoModelConfig):
    """Settings of `convert_gguf`."""

    source: str = setting(help="Folder of a model, such as a merged one.")
    out: str = setting(help="The file to write.")
    outtype: Literal["f32", "f16", "bf16", "q8_0"] = setting("f16", help="Precision of the file.")
    llama_cpp: str | None = setting(None, help="Folder of a clone of llama.cpp.")


@dataclass(frozen=True, kw_only=True)
class SaeInfoConfig(NoModelConfig):
    """Settings of `sae_info`."""

    file: str = setting(help="File of a converted autoencoder.")
    verify: bool = setting(False, help="Read all weights and compare their hash.")


@dataclass(frozen=True, kw_only=True)
class SaeListConfig(NoModelConfig):
    """Settings of `list_saes`."""

    model: str = like(ModelConfig, "model", help="Hub name or folder of the model to align.")
    num_layers: int = like(AdapterConfig, "num_layers")
    rows: int = setting(40, help="Show at most so many, the fittest; 0 shows all.", least=0)


@dataclass(frozen=True, kw_only=True)
class SaeFeaturesConfig(ModelConfig, SaeConfig):
    """Settings of `rank_features`."""

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
    report: str | None = setting(
        None,
        help="HTML file to write: the features with the texts where they are strongest, and the "
        "tokens that they promote.",
    )
    max_seq_length: int = like(DataConfig, "max_seq_length", help="Texts are cut at this length.")
    tokens_per_batch: int = like(ReferenceConfig, "tokens_per_batch")

    def check(self) -> None:
        """Features are an autoencoder's."""
        if self.sae is None:
            raise ConfigError(
                "sae is not set, expected the file of a converted autoencoder: set it"
            )
        if len(self.sae) > 1:
            raise ConfigError(
                f"sae names {len(self.sae)} autoencoders, expected one: rank the features of each "
                "by itself"
            )


@dataclass(frozen=True, kw_only=True)
class SaeCheckConfig(BackendConfig):
    """Settings of `check_sae`."""

    sae: str = setting(help="File of a converted autoencoder, with its decoder.")
    model: str = like(ModelConfig, "model")
    data: str = like(DataConfig, "data")
    hook: str | None = like(SaeConfig, "hook")
    rows: int = setting(64, help="How many pairs to read, each as two texts.", least=1)
    max_seq_length: int = like(DataConfig, "max_seq_length", default=512)
    revision: str | None = like(ModelConfig, "revision")
    trust_remote_code: bool = like(ModelConfig, "trust_remote_code")


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(Settings):
    """Settings of `doctor`."""

    backend: BackendName = setting(
        "auto", help="Look at this backend alone, and fail where it is not installed."
    )
    device: DeviceName = like(BackendConfig, "device", help="Device of the self-test.")
    self_test: bool = setting(
        False, help="Replay golden values, a gradient and three training steps on the device."
    )
    clean: bool = setting(
        False, help="Remove what killed processes left in the cache and in this folder."
    )
    cache: str | None = like(DataConfig, "cache")
