"""Who judges answers, and what is judged."""

from dataclasses import dataclass

from fpo_core.config.fields import Settings, setting
from fpo_core.config.inputs import BackendConfig
from fpo_core.errors import ConfigError

EXPORTS = ("alpaca-eval", "arena-hard", "mt-bench")


@dataclass(frozen=True, kw_only=True)
class JudgeConfig(Settings):
    """Who judges."""

    judge: str | None = setting(
        None,
        help="Who judges: MODULE:FUNCTION of a prompt and a completion; the folder of a reward "
        "model; a .yaml or .jsonl file of rules; a .jsonl file of answers with a label, to which a "
        "classifier is fitted, or the .safetensors file of one; oracle, for the world of the "
        "quickstart; or the URL of an OpenAI-compatible endpoint, as http://localhost:8080/v1.",
    )
    judge_model: str | None = setting(None, help="Model that the endpoint is asked for.")
    judge_template: str = setting(
        "alpaca",
        help="What the endpoint is asked: alpaca, arena, mt-bench, or a YAML file.",
    )
    judge_key_env: str = setting(
        "OPENAI_API_KEY", help="Environment variable of the endpoint's key; it is never written."
    )
    judge_concurrency: int = setting(8, help="Requests to the endpoint at once.", least=1, most=256)
    judge_timeout: float = setting(60.0, help="Seconds to wait for an answer of it.", above=0.0)
    judge_retries: int = setting(
        5,
        help="Attempts after one that failed, each waiting longer or as the server says.",
        least=0,
    )
    verdicts: str | None = setting(
        None,
        help="File of the endpoint's replies by content, so that none is paid for twice; by "
        "default one in the cache.",
    )

    def check(self) -> None:
        """An endpoint is asked for a model."""
        if self.is_endpoint and self.judge_model is None:
            raise ConfigError(
                "judge_model is not set, expected the name by which the endpoint knows a model"
            )

    @property
    def is_endpoint(self) -> bool:
        """Whether the judge is the URL of a server."""
        return self.judge is not None and self.judge.startswith(("http://", "https://"))


@dataclass(frozen=True, kw_only=True)
class WinRateConfig(BackendConfig, JudgeConfig):
    """Settings of `judge`."""

    answers: str = setting(
        help="JSONL of prompts and completions, as generating from a file of prompts writes it."
    )
    baseline: str | None = setting(
        None, help="The same of what they are compared with; without it, answers are scored."
    )
    out: str | None = setting(
        None, help="Folder for verdicts by pair, the result, and what export names."
    )
    export: tuple[str, ...] | None = setting(
        None,
        help="Formats of other harnesses to write too, comma-separated: "
        + ", ".join(EXPORTS)
        + ".",
    )
    cache: str | None = setting(
        None, help="Folder of caches; by default ~/.cache/fpo-mlx, or $FPO_CACHE."
    )
    dry_run: bool = setting(False, help="Only count the endpoint's calls, tokens and price.")
    price_in: float = setting(0.0, help="Price of a million tokens that are read.", least=0.0)
    price_out: float = setting(0.0, help="Price of a million tokens that are written.", least=0.0)

    def check(self) -> None:
        """Formats are known, and have a place; only an endpoint costs."""
        for name in self.export or ():
            if name not in EXPORTS:
                raise ConfigError(f"export names {name!r}, expected some of {', '.join(EXPORTS)}")
        if self.export and self.out is None:
            raise ConfigError("export is set while out is not: set out to a folder too")
        if self.dry_run and not self.is_endpoint:
            raise ConfigError(
                "dry_run is set, but only the calls of an endpoint cost: leave it out"
            )
