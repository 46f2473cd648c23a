"""Preference pairs with scores as goal-conditioned rows (arXiv 2410.08067)."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fpo.results import Result, Table
from fpo.workflow import workflow
from fpo.world import score
from fpo_core.config import AugmentConfig, DataConfig
from fpo_core.data.load import parts_of
from fpo_core.errors import DataError
from fpo_core.events import Sink, note
from fpo_core.io.atomic import new_folder, write_atomically
from fpo_core.pairs.goals import GoalTemplate, row_of
from fpo_core.pairs.messages import text_of
from fpo_core.pairs.pair import Pair

Scorer = Callable[[str, list[str]], list[float]]
"""Scores of completions of a prompt, all as text, from 0 to 1."""


@dataclass(frozen=True)
class AugmentedSplit:
    """What became of the pairs of one split."""

    pairs: int
    rows: int
    """Two of each pair that was used."""
    tied: int
    """Left out: both goals would be the same, and the rows contradict each other."""
    unscored: int
    """Left out: no score on either side or one of them."""
    contradicted: int
    """Used: the rejected side has the higher score, which a goal may ask for all the same."""


@dataclass(frozen=True)
class AugmentedData(Result):
    """A folder of goal-conditioned rows, to train on."""

    out: Path
    splits: dict[str, AugmentedSplit]

    def table(self) -> Table:
        """A split a row."""
        rows = [(name, *map(str, asdict(s).values())) for name, s in self.splits.items()]
        return Table(("", *AugmentedSplit.__dataclass_fields__), rows)

    def to_mapping(self) -> dict[str, Any]:
        """The counts as JSON values."""
        return {"out": str(self.out), "splits": {k: asdict(s) for k, s in self.splits.items()}}


@workflow(AugmentConfig)
def augment_data(config: AugmentConfig, sink: Sink) -> AugmentedData:
    """Write each pair as two rows, whose prompts ask for the score of one side and of the other.

    The row that asks for the rejected side's score prefers it. Prompts are held out before rows are
    doubled. Scores of a judge other than the world's go into columns first. Raises DataError where
    no pair has two different scores, or a score is off the scale.
    """
    low, high = config.bounds()
    template = GoalTemplate(config.goal_text, low, high, config.goal_role == "system")
    parts = parts_of(_data_config(config), config.seed)
    judge = _oracle if config.judge == "world" else None
    splits = {}
    with new_folder(Path(config.out).expanduser()) as folder:
        for name, part in parts.items():
            counts: Counter[str] = Counter()
            rows = _rows(part, template, judge, config, counts)
            _write(folder / f"{name}.jsonl", rows)
            splits[name] = AugmentedSplit(
                **{key: counts[key] for key in AugmentedSplit.__dataclass_fields__}
            )
            note(sink, f"{name}: {counts['rows']} rows of {counts['pairs']} pairs")
        if not splits["train"].rows:
            raise DataError(
                f"{config.data}: no pair has two different scores ({splits['train'].unscored} have "
                f"none, {splits['train'].tied} are tied): name their columns with scores"
            )
        template.write(folder)
    return AugmentedData(Path(config.out), splits)


def _data_config(config: AugmentConfig) -> DataConfig:
    columns = list(config.columns or ())
    if config.scores is not None:
        names = zip(("chosen_score", "rejected_score"), config.scores, strict=True)
        columns += [f"{name}={source}" for name, source in names]
    shared = {name: getattr(config, name) for name in ("data", "valid_fraction", "max_rows")}
    return DataConfig(**shared, columns=tuple(columns) or None)


def _rows(
    pairs: Iterable[Pair],
    template: GoalTemplate,
    judge: Scorer | None,
    config: AugmentConfig,
    counts: Counter[str],
) -> Iterator[dict[str, Any]]:
    for pair in pairs:
        counts["pairs"] += 1
        scores = pair.scores if judge is None else _judged(pair, judge, template)
        if scores is None:
            counts["unscored"] += 1
        elif scores[0] == scores[1]:
            counts["tied"] += 1
        else:
            _check_scale(pair, scores, template)
            counts["contradicted"] += scores[0] < scores[1]
            for row in template.augment(pair, scores, swap=config.swap):
                counts["rows"] += 1
                yield row_of(row)


def _judged(pair: Pair, judge: Scorer, template: GoalTemplate) -> tuple[float, float]:
    prompt, chosen, rejected = map(text_of, pair.split())
    shares = judge(prompt, [chosen, rejected])
    first, second = (template.low + (template.high - template.low) * share for share in shares)
    return round(first, 2), round(second, 2)


def _oracle(prompt: str, completions: list[str]) -> list[float]:
    return [score(prompt, completion).preferred for completion in completions]


def _check_scale(pair: Pair, scores: tuple[float, float], template: GoalTemplate) -> None:
    off = next((s for s in scores if not template.low <= s <= template.high), None)
    if off is not None:
        raise DataError(
            f"{pair.where}: a score is {off:g}, expected {template.low:g} to {template.high:g}: "
            "set scale to that of the data"
        )


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")

    write_atomically(path, write)
