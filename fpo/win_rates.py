"""Answers in files under a judge: scores, win rates, and the files of other harnesses."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpo.judge_choice import JudgeLike, choose_judge
from fpo.results import Result, Table, shown
from fpo.workflow import workflow
from fpo_core.config.judging import WinRateConfig
from fpo_core.events import Sink
from fpo_core.io.atomic import write_atomically, write_json
from fpo_core.io.ownership import check_foreign, check_inputs
from fpo_core.judges.answer_files import Answer, AnsweredTwice, as_lines, matched, read_answers
from fpo_core.judges.endpoint import Cost, EndpointJudge
from fpo_core.judges.exports import export
from fpo_core.judges.judge import Judge
from fpo_core.judges.win_rate import Rate, WinRate, mean_with_interval, win_rate

RESULT, PAIRS = "judged.json", "pairs.jsonl"


@dataclass(frozen=True, kw_only=True)
class JudgedAnswers(Result):
    """What a judge says of answers, and of those that they are compared with."""

    judge: str
    answers: str
    baseline: str | None
    wins: WinRate | None = None
    """How often an answer was preferred to the baseline's; None without a baseline."""
    disagreement: float | None = None
    """Share of pairs of which an endpoint preferred another answer in the other order."""
    score: Rate | None = None
    """Mean score; None of a judge that only compares."""
    baseline_score: Rate | None = None
    unscored: int = 0
    """Answers, and those of the baseline, that the means leave out."""
    cost: Cost | None = None
    """What an endpoint would be asked; of a dry run alone."""
    price: float | None = None

    def to_mapping(self) -> dict[str, Any]:
        """The result as JSON values."""
        values: dict[str, Any] = {
            name: getattr(self, name) for name in ("judge", "answers", "baseline", "price")
        }
        values |= {"win_rate": None, "length_controlled": None}
        values |= {} if self.wins is None else self.wins.to_mapping()
        values |= {"order_disagreement": self.disagreement, "unscored": self.unscored}
        for name in ("score", "baseline_score", "cost"):
            part = getattr(self, name)
            values[name] = part and vars(part)
        return values

    def table(self) -> Table:
        """A rate or a score a row, with intervals."""
        rows = [("judge", self.judge)]
        if self.cost is not None:
            rows += [
                ("calls", str(self.cost.calls)),
                ("tokens in, about", str(self.cost.tokens_in)),
            ]
            rows += [
                ("tokens out, at most", str(self.cost.tokens_out)),
                ("price", shown(self.price)),
            ]
        if self.wins is not None:
            rows += [
                ("win rate", str(self.wins.rate or "no verdict")),
                ("win rate at equal length", str(self.wins.controlled or "no verdict")),
                ("pairs", str(self.wins.pairs)),
                ("without verdict", str(self.wins.no_verdict)),
            ]
        if self.disagreement is not None:
            rows.append(("orders that disagree", shown(self.disagreement)))
        for name, rate in (("score", self.score), ("baseline's score", self.baseline_score)):
            rows += [] if rate is None else [(name, str(rate))]
        rows += [("without score", str(self.unscored))] if self.unscored else []
        return Table(("", ""), rows)


@workflow(WinRateConfig)
def judge(config: WinRateConfig, sink: Sink, by: JudgeLike | None = None) -> JudgedAnswers:
    """Judge the answers of a file: their mean score, or how often they win against a baseline.

    Win rates stand as they are and controlled for length, with intervals over prompts. `by` is a
    judge, or a function of a prompt and a completion, in place of the setting. Raises DataError
    where the files answer different prompts, JudgeError where the judge fails.
    """
    _check_output(config)
    answers = read_answers(Path(config.answers))
    pairs = None if config.baseline is None else _pairs(config, answers)
    judge = choose_judge(config, config, sink, config.cache, by)
    if config.dry_run:
        return _foretold(config, judge, answers, pairs)
    result, preferences, scores = _judged(config, judge, answers, pairs)
    if config.out is not None:
        _write(Path(config.out), config, result, answers, pairs, preferences, scores)
    return result


def _check_output(config: WinRateConfig) -> None:
    if config.out is None:
        return
    files = [Path(config.out) / name for name in (RESULT, PAIRS)]
    check_inputs(files, {"answers": config.answers, "baseline": config.baseline}, "out")
    check_foreign(files, lambda _: (Path(config.out or "") / RESULT).is_file(), "out")


def _pairs(config: WinRateConfig, answers: list[Answer]) -> AnsweredTwice:
    paths = config.answers, str(config.baseline)
    names = Path(paths[0]).stem, Path(paths[1]).stem
    # Under one name the export of one model would replace that of the other.
    names = paths if names[0] == names[1] else names
    return matched(answers, read_answers(Path(paths[1])), names)


def _foretold(
    config: WinRateConfig, judge: Judge, answers: list[Answer], pairs: AnsweredTwice | None
) -> JudgedAnswers:
    assert isinstance(judge, EndpointJudge), "the settings refuse a dry run of any other"
    sides = ([x.prompt for x in answers], [x.completion for x in answers])
    cost = judge.cost(*sides) if pairs is None else judge.cost(pairs.prompts, pairs.a, pairs.b)
    price = cost.price(config.price_in, config.price_out)
    return JudgedAnswers(
        judge=judge.name, answers=config.answers, baseline=config.baseline, cost=cost, price=price
    )


def _judged(
    config: WinRateConfig, judge: Judge, answers: list[Answer], pairs: AnsweredTwice | None
) -> tuple[JudgedAnswers, list[float], list[list[float]]]:
    """The result, the preference of each pair, and the scores of each side."""
    facts = {"judge": judge.name, "answers": config.answers, "baseline": config.baseline}
    prompts = [answer.prompt for answer in answers]
    sides = [[answer.completion for answer in answers]] + ([] if pairs is None else [pairs.b])
    scores = (
        [] if judge.compares and pairs is not None else [judge.score(prompts, s) for s in sides]
    )
    means = [mean_with_interval(prompts, side, config.seed) for side in scores]
    rates: dict[str, Any] = dict(zip(("score", "baseline_score"), means, strict=False))
    rates["unscored"] = sum(math.isnan(value) for side in scores for value in side)
    if pairs is None:
        return JudgedAnswers(**facts, **rates), [], scores
    disagreement = None
    if isinstance(judge, EndpointJudge) and judge.compares:
        orders = judge.orders(pairs.prompts, pairs.a, pairs.b)
        preferences, disagreement = orders.means(), orders.disagreement()
    else:
        preferences = judge.prefer(pairs.prompts, pairs.a, pairs.b)
    wins = win_rate(pairs.prompts, preferences, pairs.lengths, config.seed)
    return (
        JudgedAnswers(**facts, **rates, wins=wins, disagreement=disagreement),
        preferences,
        scores,
    )


def _write(
    folder: Path,
    config: WinRateConfig,
    result: JudgedAnswers,
    answers: list[Answer],
    pairs: AnsweredTwice | None,
    preferences: list[float],
    scores: list[list[float]],
) -> None:
    columns: dict[str, list[Any]] = {
        "prompt": [answer.prompt for answer in answers],
        "completion": [answer.completion for answer in answers],
    }
    if pairs is not None:
        columns |= {"baseline": pairs.b, "preference": [_number(p) for p in preferences]}
    for name, side in zip(("score", "baseline_score"), scores, strict=False):
        columns[name] = [_number(value) for value in side]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    text = as_lines(rows)
    write_json(folder / RESULT, result.to_mapping())
    write_atomically(folder / PAIRS, lambda path: path.write_text(text, encoding="utf-8"))
    if pairs is not None:
        for name in config.export or ():
            export(folder, name, pairs, preferences)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
