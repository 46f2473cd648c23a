"""`fpo sae check`: an autoencoder on a model and a user's own pairs, raw and as chat."""

from dataclasses import asdict
from typing import Any

from fpo.backends import build_reader
from fpo.session import Session
from fpo_cli.console.ui import Ui
from fpo_core.config import DataConfig, ModelConfig, SaeCheckConfig, SaeConfig
from fpo_core.data.chat_rows import chat_rows, first_pairs, raw_rows
from fpo_core.data.sources import read_pairs
from fpo_core.errors import SaeError
from fpo_core.sae.explained_variance import Fit, check_texts, judge
from fpo_core.sae.load import load_features

_SHOWN = {
    "tokens": ("tokens", "{:d}"),
    "variance_unexplained": ("variance unexplained", "{:.3f}"),
    "with_outliers": ("  with outliers", "{:.3f}"),
    "l0": ("features per token (L0)", "{:.1f}"),
    "dead_share": ("features that never fire", "{:.1%}"),
    "outlier_share": ("tokens with outlying norm", "{:.2%}"),
}


def check_sae(config: SaeCheckConfig, ui: Ui) -> dict[str, Any]:
    """Measure, show and judge. Raises SaeError for a file without decoder, or that cannot fit."""
    names = set(ModelConfig.names()) & set(SaeCheckConfig.names())
    session = Session(ModelConfig(**{name: getattr(config, name) for name in names}))
    hook = None if config.hook is None else (config.hook,)
    chosen = SaeConfig(sae=(config.sae,), hook=hook)
    features = load_features(chosen, session.model, session.special)
    assert features is not None, "the autoencoder was given"
    tap = features.single
    if not tap.sae.has_decoder:
        raise SaeError(
            f"{config.sae} was converted without its decoder, which the check needs: convert the "
            "original again without --encoder-only"
        )
    pairs = first_pairs(read_pairs(DataConfig(data=config.data))["train"], config.rows)
    raw, chat = (
        make(pairs, session.tokenizer, config.max_seq_length) for make in (raw_rows, chat_rows)
    )
    reader = build_reader(session.backend, session.model.path, session.config, tap.hook)
    fits = {
        "raw": check_texts(reader, features, raw or []),
        "chat": None if chat is None else check_texts(reader, features, chat),
    }
    verdict = judge(fits["raw"], fits["chat"], tap.sae.d_sae)
    ui.say(f"{config.sae} at {tap.hook} of {config.model}")
    _show(fits, ui)
    ui.say(f"{verdict.word}: {'; '.join(verdict.reasons)}")
    return {
        "sae": config.sae,
        "model": config.model,
        "hook": str(tap.hook),
        "backend": session.backend,
        "pairs": len(pairs),
        **{name: None if fit is None else asdict(fit) for name, fit in fits.items()},
        "verdict": verdict.word,
        "reasons": list(verdict.reasons),
    }


def _show(fits: dict[str, Fit | None], ui: Ui) -> None:
    kinds = {name: asdict(fit) for name, fit in fits.items() if fit is not None}
    ui.say(" " * 28 + "".join(f"{name:>10}" for name in kinds))
    for field, (words, form) in _SHOWN.items():
        ui.say(f"{words:<28}" + "".join(f"{form.format(fit[field]):>10}" for fit in kinds.values()))
    if "chat" not in kinds:
        ui.note("the tokenizer has no chat template: only raw text was read")
