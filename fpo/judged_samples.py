"""A model's samples under a judge, by themselves and against those of where it came from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fpo_core.judges.judge import Judge
from fpo_core.judges.win_rate import Rate, WinRate, mean_with_interval, win_rate


@dataclass(frozen=True, kw_only=True)
class JudgedSamples:
    """What a judge says of samples after, and of those before at the same prompts."""

    judge: str
    before: Rate | None = None
    """Mean score; None of a judge that only compares."""
    after: Rate | None = None
    wins: WinRate | None = None
    """How often a sample after was preferred; None without samples before."""

    def to_mapping(self) -> dict[str, Any]:
        """The verdicts as JSON values."""
        values: dict[str, Any] = {"judge": self.judge}
        for name, rate in (("score_before", self.before), ("score", self.after)):
            values[name] = rate and vars(rate)
        return values | ({} if self.wins is None else self.wins.to_mapping())

    def line(self) -> str:
        """The verdicts in a sentence."""
        parts = []
        if self.after is not None:
            before = "" if self.before is None else f"{self.before.value:.3f} → "
            parts.append(f"score {before}{self.after}")
        if self.wins is not None:
            parts.append(f"win rate {self.wins.rate}, at equal length {self.wins.controlled}")
            if self.wins.no_verdict:
                parts.append(f"{self.wins.no_verdict} of {self.wins.pairs} without a verdict")
        return f"Judged by {self.judge}: {'; '.join(parts) or 'no verdict'}."


def judge_samples(
    judge: Judge,
    prompts: Sequence[str],
    after: Sequence[str],
    before: Sequence[str] | None,
    seed: int = 0,
) -> JudgedSamples:
    """Score the samples of each side, and compare them prompt by prompt, where there are both."""
    sides: dict[str, Sequence[str]] = {"after": after}
    if before is not None:
        sides["before"] = before
    scores = {}
    if not judge.compares:
        scores = {
            side: mean_with_interval(prompts, judge.score(prompts, texts), seed)
            for side, texts in sides.items()
        }
    wins = None
    if before is not None:
        sizes = [(len(x), len(y)) for x, y in zip(after, before, strict=True)]
        wins = win_rate(prompts, judge.prefer(prompts, after, before), sizes, seed)
    return JudgedSamples(judge=judge.name, wins=wins, **scores)
