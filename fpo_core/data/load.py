"""`load_data`: from settings to tokenised pairs, through the cache."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fpo_core.config import DataConfig
from fpo_core.data import cache
from fpo_core.data.report import DataReport, SplitReport
from fpo_core.data.sources import Source, open_sources
from fpo_core.data.splits import Part
from fpo_core.data.token_store import Preferences, RowWriter, TokenisedPairs
from fpo_core.data.tokenise import DATE, PairTokeniser
from fpo_core.data.tokenizer import Tokenizer, tokenizer_digest, writes_date
from fpo_core.data.workers import tokenise_all
from fpo_core.errors import DataError
from fpo_core.pairs.goals import GoalTemplate
from fpo_core.pairs.pair import Pair

_VERSION = 2
"""Increased when the same data would be tokenised differently, to invalidate old caches."""


@dataclass(frozen=True)
class Goal:
    """A score that every prompt asks for."""

    template: GoalTemplate
    value: float

    def key(self) -> dict[str, Any]:
        """What tells tokens under it from others."""
        return {"goal": [self.template.sentence(self.value), self.template.system]}


@dataclass(frozen=True)
class _Asking(Iterable[Pair]):
    """The pairs of a part with their goal: what is held out depends on prompts without it."""

    part: Part
    goal: Goal

    def __iter__(self) -> Iterator[Pair]:
        return (self.goal.template.pair(pair, self.goal.value) for pair in self.part)


@dataclass(frozen=True)
class PreferenceData:
    """Tokenised training pairs, validation pairs if there are any, and the report on both."""

    train: TokenisedPairs
    valid: TokenisedPairs | None
    report: DataReport
    folder: Path
    """The cache folder that holds them."""


def load_data(
    config: DataConfig,
    tokenizer: Tokenizer,
    seed: int = 0,
    *,
    workers: int | None = None,
    goal: Goal | None = None,
) -> PreferenceData:
    """The pairs of `config.data` as tokens, from the cache or tokenised by `workers` processes.

    `seed` selects the held-out prompts where `valid_fraction` is set and the data has no validation
    split. Every prompt asks for the `goal`, where there is one. Raises DataError for data that
    cannot be read or leaves no usable pair and, under `strict`, for any row that would be dropped
    or changed; ConfigError for contradictory budgets.
    """
    sources = open_sources(config)
    tokeniser = PairTokeniser(
        tokenizer,
        config.max_seq_length,
        config.max_prompt_length,
        config.template_date,
        config.truncation,
    )
    key = _key(sources, config, tokenizer, seed) | (goal.key() if goal else {})
    folder = cache.cache_root(config.cache) / cache.fingerprint(key)
    parts: dict[str, Iterable[Pair]] = {**_parts(sources, config, seed)}
    if goal is not None:
        parts = {name: _Asking(part, goal) for name, part in _parts(sources, config, seed).items()}
    splits, report = cache.open_cached(folder) or cache.build(
        folder, key, lambda new: _write_all(new, parts, config, tokeniser, workers)
    )
    if config.strict:
        _check_strict(report)
    return PreferenceData(splits["train"], splits.get("valid"), report, folder)


def _write_all(
    folder: Path,
    parts: Mapping[str, Iterable[Pair]],
    config: DataConfig,
    tokeniser: PairTokeniser,
    workers: int | None,
) -> DataReport:
    report = DataReport()
    for split, part in parts.items():
        report.splits[split] = _write(folder, split, part, tokeniser, workers)
        _check_split(report.splits[split], split, config)
    return report


def parts_of(config: DataConfig, seed: int) -> dict[str, Part]:
    """The pairs of each split of `config.data`, as they are in the files."""
    return _parts(open_sources(config), config, seed)


def _parts(sources: Mapping[str, Source], config: DataConfig, seed: int) -> dict[str, Part]:
    if "valid" in sources or not config.valid_fraction:
        return {name: Part(source, limit=config.max_rows) for name, source in sources.items()}
    return {
        name: Part(sources["train"], config.valid_fraction, seed, held_out, config.max_rows)
        for name, held_out in (("train", False), ("valid", True))
    }


def _key(
    sources: Mapping[str, Source], config: DataConfig, tokenizer: Tokenizer, seed: int
) -> dict[str, Any]:
    holds_out = "valid" not in sources and config.valid_fraction > 0
    return {
        "version": _VERSION,
        "data": {name: source.digest() for name, source in sources.items()},
        "tokenizer": tokenizer_digest(tokenizer),
        "transformers": version("transformers"),
        "max_seq_length": config.max_seq_length,
        "max_prompt_length": config.max_prompt_length,
        "truncation": config.truncation,
        "max_rows": config.max_rows,
        "columns": config.columns,
        "template_date": (config.template_date or DATE) if writes_date(tokenizer) else None,
        "holdout": [config.valid_fraction, seed] if holds_out else None,
    }


def _write(
    folder: Path, split: str, part: Iterable[Pair], tokeniser: PairTokeniser, workers: int | None
) -> SplitReport:
    report, preferences = SplitReport(), Preferences()
    with RowWriter(folder, split) as writer:
        for packed, counts in tokenise_all(part, tokeniser, workers):
            writer.append(packed)
            preferences.append(packed)
            report.add(counts)
    for row in preferences.conflicts():
        report.note("conflicting", f"row {row}")
    return report


def _check_split(report: SplitReport, split: str, config: DataConfig) -> None:
    if report.kept:
        return
    if report.read:
        raise DataError(
            f"{config.data}: no usable {split} pair among {report.read} rows: "
            + "; ".join(report.problems())
        )
    if config.valid_fraction:
        raise DataError(
            f"{config.data}: valid_fraction {config.valid_fraction} leaves no {split} pair: "
            "there are too few prompts for it; set another, or give a validation file"
        )
    raise DataError(f"{config.data}: the {split} data set is empty, expected at least one pair")


def _check_strict(report: DataReport) -> None:
    problems = [
        f"{name}: {line}" for name, split in report.splits.items() for line in split.problems()
    ]
    if problems:
        raise DataError(
            "strict is set, and rows would be dropped or changed: "
            + "; ".join(problems)
            + ". Fix them, or leave strict off"
        )
