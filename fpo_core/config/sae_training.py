"""The settings of training an autoencoder."""

from dataclasses import dataclass
from typing import Literal

from fpo_core.config.fields import Settings, like, setting
from fpo_core.config.inputs import BackendConfig, DataConfig, ModelConfig
from fpo_core.config.training import LoopConfig
from fpo_core.errors import ConfigError

SiteName = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mlp_in", "z"]


@dataclass(frozen=True, kw_only=True)
class SaeTextConfig(Settings):
    """Which texts it reads."""

    data: str | None = setting(
        None,
        help="Preference pairs as `fpo train` reads them; both sides, under the chat template.",
    )
    text: str | None = setting(
        None,
        help="Plain texts: .jsonl with `text`, one text a line, or a hub data set, as "
        "user/name:configuration@revision, with a column `text`.",
    )
    columns: tuple[str, ...] | None = like(DataConfig, "columns")
    max_rows: int | None = setting(None, help="Use only the first pairs and texts.", least=1)
    max_seq_length: int = setting(512, help="Texts are cut at so many tokens.", least=8)
    valid_fraction: float = setting(
        0.05,
        help="Share of prompts and of texts held out to set the threshold and to measure; pairs "
        "with a validation file hold out that.",
        above=0.0,
        most=0.5,
    )
    cache: str | None = setting(
        None,
        help="Folder that keeps activations for later runs, 2 · d_in bytes a token and layer; by "
        "default none are kept.",
    )

    def check(self) -> None:
        """There is something to read."""
        if self.data is None and self.text is None:
            raise ConfigError("data and text are not set, expected one or both: set data")


@dataclass(frozen=True, kw_only=True)
class SaeRecipeConfig(Settings):
    """What is trained."""

    layer: tuple[str, ...] | None = setting(
        None,
        help="Block whose activations are read, from 0; of several, comma-separated, an "
        "autoencoder each from one pass. By default the block after four fifths of them.",
    )
    site: SiteName = setting("resid_post", help="Where in the block.")
    architecture: Literal["batchtopk", "topk"] = setting(
        "batchtopk",
        help="k features active on average, saved as jumprelu with one threshold; or k at each "
        "token.",
    )
    matryoshka: int = setting(
        1, help="Nested widths that reconstruct by themselves; 1 is none but d_sae.", least=1
    )
    d_sae: int | None = setting(
        None, help="Features; by default by the model's width and the tokens at hand.", least=2
    )
    k: int | None = setting(
        None, help="Features active per token; by default by the model's width.", least=1
    )
    tokens: int | None = setting(
        None,
        help="Tokens trained on, repeats counted; by default by the model's width, and each token "
        "at most 20 times.",
        least=1,
    )
    batch_tokens: int = setting(2048, help="Tokens per step.", least=1)
    learning_rate: float | None = setting(
        None,
        help="Peak learning rate; by default by d_in, d_sae and the steps.",
        above=0.0,
        most=10.0,
    )


@dataclass(frozen=True, kw_only=True)
class SaeTrainConfig(BackendConfig, SaeTextConfig, SaeRecipeConfig):
    """Settings of `train_sae`."""

    model: str = like(ModelConfig, "model")
    revision: str | None = like(ModelConfig, "revision")
    trust_remote_code: bool = like(ModelConfig, "trust_remote_code")
    output: str = setting(
        help="File to write; of several layers, their number is put before its ending. The log and "
        "what a stopped run goes on from lie beside it, in a folder of its name with -run."
    )
    save_dtype: Literal["float32", "float16", "bfloat16"] = setting(
        "float32", help="Precision of the two weight matrices in the file."
    )
    memory: int = setting(
        1024, help="MiB that activations waiting to be trained on may take.", least=1
    )
    tokens_per_batch: int = setting(2048, help="Token budget of one forward pass.", least=8)
    steps_per_report: int = like(LoopConfig, "steps_per_report", default=50)
    save_every: int = setting(500, help="Steps between checkpoints.", least=1)
    resume: bool = setting(
        False, help="Go on where a stopped run of the same settings was, bit for bit on a CPU."
    )
    dry_run: bool = setting(
        False, help="Say what the run would take in time, memory and disk, and stop."
    )
    process_timeout: float = like(LoopConfig, "process_timeout")

    def check(self) -> None:
        """Layers are numbers, each once."""
        for name in self.layer or ():
            if not name.isdecimal():
                raise ConfigError(f"layer names {name!r}, expected whole numbers from 0")
        if len(set(self.layer or ())) < len(self.layer or ()):
            raise ConfigError("layer names a block twice, expected each once: leave it out")
