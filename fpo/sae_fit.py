"""How well an autoencoder explains a model on a user's own pairs, raw and as chat."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fpo.backends import build_reader
from fpo.model_setup import ModelSetup
from fpo.results import Result, Table
from fpo.workflow import workflow
from fpo_core.config import DataConfig, ModelConfig, SaeCheckConfig, SaeConfig
from fpo_core.data.chat_rows import chat_rows, first_pairs, raw_rows
from fpo_core.data.sources import read_pairs
from fpo_core.errors import SaeError
from fpo_core.events import Sink, note, warn
from fpo_core.sae.activation_reader import ActivationReader
from fpo_core.sae.explained_variance import Fit, check_texts, judge, memory_needed
from fpo_core.sae.load import load_features
from fpo_core.sae.loss_recovered import measure_splice
from fpo_core.sae.taps import Features

_ROWS = {
    "tokens": ("tokens", "{:d}"),
    "variance_unexplained": ("variance unexplained", "{:.3f}"),
    "with_outliers": ("  with outliers", "{:.3f}"),
    "l0": ("features per token (L0)", "{:.1f}"),
    "dead_share": ("features that never fire", "{:.1%}"),
    "dense_share": ("features at over 10% of tokens", "{:.1%}"),
    "outlier_share": ("tokens with outlying norm", "{:.2%}"),
}


@dataclass(frozen=True, kw_only=True)
class SaeFit(Result):
    """How an autoencoder fits, as measured on raw texts and under the chat template."""

    sae: str
    model: str
    hook: str
    backend: str
    pairs: int
    raw: Fit
    chat: Fit | None
    """None where the tokenizer has no chat template."""
    verdict: str
    """`fits`, `usable` or `does not fit`."""
    reasons: list[str]

    def table(self) -> Table:
        """A measurement a row, and the verdict."""
        fits = {"raw": self.raw} | ({} if self.chat is None else {"chat": self.chat})
        rows = fit_rows(fits.values())
        return Table(("", *fits), rows, (f"{self.verdict}: {'; '.join(self.reasons)}",))


def fit_rows(fits: Iterable[Fit]) -> list[tuple[str, ...]]:
    """A measurement a row, a column for each of the fits."""
    fits = list(fits)
    rows = [
        (label, *(form.format(getattr(fit, name)) for fit in fits))
        for name, (label, form) in _ROWS.items()
    ]
    spliced = [fit.recovered for fit in fits]
    if None in spliced:
        return rows
    shares = (f"{r.share:.1%}" for r in spliced if r is not None)
    return [
        *rows,
        ("cross-entropy recovered", *shares),
        ("KL of the logits", *(f"{r.kl:.3f}" for r in spliced if r is not None)),
    ]


def measure_fit(
    reader: ActivationReader, features: Features, rows: Sequence[Sequence[int]], sink: Sink
) -> Fit:
    """What an autoencoder explains of a whole model on rows of ids, and what its logits lose."""
    fit = check_texts(reader, features, rows, sink)
    return replace(fit, recovered=measure_splice(reader, features, rows, sink))


@workflow(SaeCheckConfig)
def check_sae(config: SaeCheckConfig, sink: Sink) -> SaeFit:
    """Measure how well an autoencoder explains a model on your data, and judge whether it fits.

    The first pairs are read twice: as raw text, and under the model's chat template. Raises
    SaeError for a file without decoder, or one that does not fit the model's shape.
    """
    setup = ModelSetup(config.only(ModelConfig))
    hook = None if config.hook is None else (config.hook,)
    features = load_features(SaeConfig(sae=(config.sae,), hook=hook), setup.model, setup.special)
    assert features is not None, "the autoencoder is set"
    for doubt in features.doubts:
        warn(sink, doubt)
    tap = features.single
    if not tap.sae.has_decoder:
        raise SaeError(
            f"{config.sae} was converted without its decoder, which the check needs: convert the "
            "original again without encoder_only"
        )
    pairs = first_pairs(read_pairs(DataConfig(data=config.data))["train"], config.rows)
    raw_texts = raw_rows(pairs, setup.tokenizer, config.max_seq_length)
    chat_texts = chat_rows(pairs, setup.tokenizer, config.max_seq_length)
    # A bare model read at one hook: a policy would hold adapters and a head in vain.
    needed = memory_needed(tap.sae, [*raw_texts, *(chat_texts or ())])
    note(sink, f"the check takes up to {needed / 2**30:.1f} GiB besides the model")
    reader = build_reader(setup.backend, setup.model.path, setup.config, [tap.hook], whole=True)
    note(sink, f"{setup.backend}, {setup.model.name}: reading {len(pairs)} pairs at {tap.hook}")
    raw = measure_fit(reader, features, raw_texts, sink)
    chat = None if chat_texts is None else measure_fit(reader, features, chat_texts, sink)
    if chat is None:
        note(sink, "the tokenizer has no chat template: only raw text was read")
    verdict = judge(raw, chat, tap.sae.d_sae)
    return SaeFit(
        sae=config.sae,
        model=config.model,
        hook=str(tap.hook),
        backend=setup.backend,
        pairs=len(pairs),
        raw=raw,
        chat=chat,
        verdict=verdict.word,
        reasons=list(verdict.reasons),
    )
