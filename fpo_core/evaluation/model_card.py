"""The README.md of a result: a model card with the hub's front matter.

It names inputs by hub name or the last part of a path: a card is published, and paths are private.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fpo_core.adapters.merge_check import FuseCheck
from fpo_core.config import AdapterConfig, ObjectiveConfig, OptimiserConfig, TrainConfig
from fpo_core.evaluation.card_usage import answered, judged, provenance, usage
from fpo_core.io.atomic import write_atomically
from fpo_core.io.foreign_text import code_span, for_markdown
from fpo_core.loss.metric_catalogue import METRICS
from fpo_core.sae.taps import Features, HookedSae

CARD_FILE = "README.md"
PICTURE = "curves.png"
_TAG = "fpo-mlx"
_HERE = "FOLDER"
"""Stands for where the result lies, in code that a reader copies."""
_LOOP = ("batch_size", "grad_accumulation_steps", "max_seq_length", "seed")
_UNMEASURED = ("pairs", "completions", "sample_length", "questions")
_USE = re.compile(r"^## Use\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
_FRONT = re.compile(r"^---\n.*?\n---\n+# [^\n]*\n+", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a card of training tells besides its settings."""

    base: str
    """The model as the user called it."""
    backend: str
    steps: int
    rows: Mapping[str, int]
    """Pairs by split."""
    data: str
    """Fingerprint of the pairs."""
    features: Features | None
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    """Measurements by name; shares are mappings with value, low and high."""
    verdict: Sequence[str] = ()
    command: str = ""
    """What made the result, without private paths."""
    versions: Mapping[str, str | None] = field(default_factory=dict)
    """Of this program and the libraries, by name."""
    chat: bool = False
    """Whether the tokenizer has a chat template."""


def train_card(config: TrainConfig, facts: RunFacts) -> str:
    """The card of a trained adapter or model."""
    full = config.fine_tune_type == "full"
    base, kind = (
        for_markdown(shown(facts.base)),
        "fully fine-tuned" if full else config.fine_tune_type,
    )
    tags = ["preference-optimization", config.objective, *([] if full else [kind])]
    rows = ", ".join(f"{count} {split} pairs" for split, count in facts.rows.items())
    lines = [
        f"{base}, {kind} on preference pairs with the objective `{config.objective}` for "
        f"{facts.steps} steps, by fpo-mlx on {facts.backend}.",
        *([f"\n{config.reading}"] if config.reading else []),
        *_sections(
            Use=usage(
                base,
                config.push_to_hub or _HERE,
                adapter=not full,
                chat=facts.chat,
                mlx=not config.virtual,
            ),
            Verdict=judged(facts.verdict),
            Answers=answered(facts.after.get("samples", ())),
        ),
        *_table("Settings", ("setting", "value"), _settings(config).items()),
        *_section(
            "Data", f"{code_span(shown(config.data))}: {rows}. Fingerprint of their token ids:"
        ),
        f"`{facts.data}`",
        *_autoencoder(config, facts.features),
        *_metrics(facts.before, facts.after),
        *_section("Curves", f"![Loss, accuracy and drift over the run]({PICTURE})"),
        *_sections(Provenance=provenance(facts.command, facts.versions) if facts.command else ()),
        *_licence(),
    ]
    return _card(facts.base, f"{base}, {kind}", "transformers" if full else "peft", tags, lines)


def fuse_card(
    base: str,
    kind: str,
    check: FuseCheck,
    dtypes: list[str],
    adapter_card: str,
    *,
    result: str | None = None,
    chat: bool = False,
) -> str:
    """The card of a merged model; the body of the adapter's card follows, where it has one.

    `result` is its hub name, `chat` whether its tokenizer has a chat template.
    """
    name = for_markdown(shown(base))
    body = _FRONT.sub("", adapter_card) if _TAG in adapter_card else ""
    body = _USE.sub("", body, count=1)  # that of an adapter, which is no longer there
    lines = [
        f"{name} with a {kind} adapter merged into its weights ({', '.join(dtypes)}) by fpo-mlx. "
        f"On a probe its logits differ from the adapter's by at most {check.largest:.1e}; the "
        f"adapter moves those of its base by {check.moved:.1e} (root mean square).",
        *_sections(Use=usage(name, result or _HERE, adapter=False, chat=chat)),
        *(["", body.rstrip()] if body else _licence()),
    ]
    title = f"{name}, merged with a {kind} adapter"
    return _card(base, title, "transformers", ["preference-optimization", kind], lines)


def write_card(folder: Path, text: str) -> bool:
    """Write a card, unless a README.md is there that the user wrote; whether it was written."""
    path = folder / CARD_FILE
    # By text, not as YAML: a card of ours stays ours where its front matter was edited badly.
    if path.exists() and f"- {_TAG}\n" not in path.read_text(encoding="utf-8", errors="replace"):
        return False
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return True


def shown(name: str) -> str:
    """A hub name as it is; of a path, the last part alone."""
    return name if is_hub_name(name) else Path(name).expanduser().absolute().name


def is_hub_name(name: str) -> bool:
    """Whether this can be user/model on the hub, and is nothing on this machine."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) is not None and not Path(name).exists()


def _card(base: str, title: str, library: str, tags: Iterable[str], lines: list[str]) -> str:
    from huggingface_hub import ModelCardData

    model = base if is_hub_name(base) else None
    front = ModelCardData(base_model=model, library_name=library, tags=[_TAG, *tags]).to_yaml()
    return "\n".join(["---", front, "---", "", f"# {title}", "", *lines]) + "\n"


def _settings(config: TrainConfig) -> dict[str, Any]:
    """The settings in force, without places."""
    groups = (ObjectiveConfig, AdapterConfig, OptimiserConfig)
    names = [name for group in groups for name in group.names()]
    if config.fine_tune_type == "full":
        names = [n for n in names if n not in ("rank", "scale", "dropout", "target_modules")]
    values = {name: getattr(config, name) for name in (*names, *_LOOP)}
    values |= config.coefficients | {"link": config.link_name}
    values["learning_rate"] = config.peak_learning_rate(config.fine_tune_type)
    return {
        name: for_markdown(", ".join(value) if isinstance(value, tuple) else str(value))
        for name, value in values.items()
        if value is not None
    }


def _autoencoder(config: TrainConfig, features: Features | None) -> list[str]:
    if features is None:
        return _section("Autoencoder", "None.")
    taps = zip(config.sae or (), features.hooked, strict=True)
    lines = [line for name, tap in taps for line in _described(name, tap)]
    return _section("Autoencoder", lines[0]) + lines[1:]


def _described(name: str, tap: HookedSae) -> list[str]:
    sae = tap.sae
    made_for = f", made for {for_markdown(shown(sae.model_name))}" if sae.model_name else ""
    text = (
        f"{code_span(shown(name))}{made_for}: {sae.architecture}, {sae.d_sae} features of "
        f"{sae.d_in} dimensions at {code_span(str(tap.hook))}. SHA-256 of its weights:"
    )
    return [text, f"`{sae.payload_sha256}`"]


def _metrics(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    rows = [
        (f"`{name}`", (_shown_value(name, before.get(name)), _shown_value(name, value)))
        for name, value in after.items()
        if name in METRICS and name not in _UNMEASURED and value is not None
    ]
    table = _table("Metrics", ("metric", "before", "after"), ((n, " | ".join(v)) for n, v in rows))
    return [*table, "", f"On {after['pairs']} pairs."]


def _shown_value(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        value, low, high = (METRICS[name].text(value[key]) for key in ("value", "low", "high"))
        return f"{value} [{low}, {high}]"
    return METRICS[name].text(value)


def _table(title: str, heads: tuple[str, ...], rows: Iterable[tuple[str, Any]]) -> list[str]:
    head = f"| {' | '.join(heads)} |"
    return [*_section(title, head), "|---" * len(heads) + "|", *(f"| {a} | {b} |" for a, b in rows)]


def _sections(**texts: Sequence[str]) -> list[str]:
    """Sections by title, those that have any text."""
    return [
        line for title, text in texts.items() if text for line in ["", f"## {title}", "", *text]
    ]


def _licence() -> list[str]:
    text = "To be filled in: the base model's licence and the data's apply to this result."
    return _section("Licence", text)


def _section(title: str, text: str) -> list[str]:
    return ["", f"## {title}", "", text]
