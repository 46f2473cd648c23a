"""Where to compute, and what goes in: model, pairs, autoencoder."""

from dataclasses import dataclass
from datetime import date
from typing import Literal

from fpo_core.config.backends import BackendName
from fpo_core.config.fields import Settings, setting
from fpo_core.errors import ConfigError

DeviceName = Literal["auto", "cpu", "cuda", "mps", "gpu"]
COLUMNS = (
    *("prompt", "system", "input", "history", "chosen", "rejected"),
    *("tools", "chat_template_kwargs", "chosen_score", "rejected_score"),
)
"""Standard names that `columns` maps to columns of the data."""
DtypeName = Literal["auto", "float32", "bfloat16"]
Truncation = Literal["drop", "cut", "keep-end"]


@dataclass(frozen=True, kw_only=True)
class BackendConfig(Settings):
    """Where to compute."""

    backend: BackendName = setting("auto", help="mlx on Metal, torch on CUDA, else torch.")
    device: DeviceName = setting(
        "auto", help="Device of the backend; gpu is Metal (or CUDA) under MLX."
    )
    dtype: DtypeName = setting(
        "auto",
        help="Compute precision; auto is bfloat16 on a GPU and float32 on a CPU, but bfloat16 to "
        "train, store and evaluate where a probe of half a second finds it 1.5 times as fast.",
    )
    seed: int = setting(
        0,
        help="Seed of the data order, adapters, dropout and samples.",
        least=0,
        most=2**53 - 1,  # whole as a float, and taken by every framework
    )


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
        help="JSONL, JSON or Parquet file, folder with train/valid files, or hub name, as "
        "user/name:configuration@revision."
    )
    columns: tuple[str, ...] | None = setting(
        None,
        help="Columns to read, such as prompt=question,system=context; prompt= alone reads none. "
        "Common layouts are recognised without it.",
    )
    template_date: str | None = setting(
        None,
        help="Date, as 2024-07-26, for chat templates that write today's; that one by default, so "
        "that rows stay the same from day to day.",
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
    truncation: Truncation = setting(
        "cut",
        help="Completions beyond the budget: drop their pair, cut them, or cut them but keep-end, "
        "their end of turn, which may teach to stop in mid-sentence.",
    )
    strict: bool = setting(
        False,
        help="Refuse data with any row that would be dropped or changed, and an autoencoder of "
        "another model.",
    )
    max_rows: int | None = setting(None, help="Use only the first rows of each split.", least=1)
    cache: str | None = setting(
        None, help="Folder for tokenised rows; by default ~/.cache/fpo-mlx, or $FPO_CACHE."
    )

    def check(self) -> None:
        """A mapped column has a name that pairs are read by; a date is one of the calendar."""
        for item in self.columns or ():
            name, equals, _ = item.partition("=")
            if name.strip() not in COLUMNS or not equals:
                raise ConfigError(
                    f"columns has {item!r}, expected NAME=COLUMN, where NAME is one of "
                    + ", ".join(COLUMNS)
                )
        try:
            date.fromisoformat(self.template_date or "2024-07-26")
        except ValueError:
            raise ConfigError(
                f"template_date is {self.template_date!r}, expected a date such as 2024-07-26"
            ) from None

    def column_names(self) -> dict[str, str]:
        """The column to read for each standard name that `columns` maps; "" for none."""
        split = (item.partition("=") for item in self.columns or ())
        return {name.strip(): source.strip() for name, _, source in split}


@dataclass(frozen=True, kw_only=True)
class SaeConfig(Settings):
    """Which autoencoders measure the drift of features."""

    sae: tuple[str, ...] | None = setting(
        None,
        help="File of an autoencoder; to train, also auto: the published one, converted, or one "
        "trained on the pairs (with yes). Of several files, comma-separated, D is the mean.",
    )
    hook: tuple[str, ...] | None = setting(
        None, help="Where each autoencoder reads the model; by default as its file says."
    )

    def check(self) -> None:
        """A hook needs the autoencoder that reads the model there."""
        if self.hook is not None and self.sae is None:
            raise ConfigError("hook is set while sae is not: set sae too, or leave hook out")
        if self.sae is not None and "auto" in self.sae and (self.hook or len(self.sae) > 1):
            raise ConfigError("sae is auto beside a hook or another file: leave one of them out")
        if self.hook is not None and self.sae is not None and len(self.hook) != len(self.sae):
            raise ConfigError(
                f"hook names {len(self.hook)} places and sae {len(self.sae)} autoencoders, "
                "expected one for each: give as many, or leave it out"
            )
        if self.sae is not None and len(set(self.sae)) < len(self.sae):
            raise ConfigError("sae names an autoencoder twice, expected each once: leave it out")


@dataclass(frozen=True, kw_only=True)
class FeatureConfig(SaeConfig):
    """Which of its features count."""

    feature_weights: str | None = setting(
        None,
        help="File of weighted features that D compares in place of the top k, as ranking features "
        "writes it; with normalize_d off where the reference may lack them all.",
    )

    def check(self) -> None:
        """Weights need the one autoencoder whose features they weigh."""
        if self.feature_weights is not None and self.sae is None:
            raise ConfigError(
                "feature_weights is set while sae is not: set sae too, or leave it out"
            )
        if self.feature_weights is not None and self.sae is not None and len(self.sae) > 1:
            raise ConfigError(
                f"feature_weights is set while sae names {len(self.sae)} autoencoders, expected "
                "one: weights are of one autoencoder's features"
            )
