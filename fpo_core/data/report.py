"""How many rows of a data set were used, changed or dropped, and which."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from fpo_core.pairs.pair import Pair

DROPS = {
    "identical": "dropped: chosen and rejected are the same tokens",
    "empty": "dropped: a completion has no token to score",
    "no_prompt": "dropped: no prompt to predict from, or none but special tokens",
    "short_prompt": "dropped: no prompt column, and the sides share too few first words for one",
    "no_room": "dropped: the token budget leaves no more of a completion than its end of turn",
    "too_long": "dropped: a completion does not fit the token budget",
    "tied": "dropped: the best and the worst of a list of replies have the same score",
}
CHANGES = {
    "prompt_cut": "prompt cut on the left to fit the token budget",
    "completion_cut": "completion cut to fit the token budget, its end of turn preserved",
    "completion_open": "completion cut to fit the token budget, its end left open",
    "not_prefix": "prompt is not a prefix of prompt + completion: "
    "every token after the common prefix is scored",
    "not_rendered": "the chat template does not write all of the row",
    "ended": "a message holds its own end of turn, which is written once",
    "blank": "a completion is empty or blank, which trains the model to end at once",
    "unread": "a column that may belong to the prompt is not read: set columns",
    "unmapped": "a column that columns names is not in the row",
    "contradicted": "the scores of the row say that its rejected side is better",
    "conflicting": "another row prefers the opposite",
}
REMARKS = {
    "implicit": "no prompt column: the prompt is what chosen and rejected both begin with",
    "later_turns": "user turns after the sides part are scored like replies",
    "ranked": "of a list of replies the best and the worst are compared, the others not read",
}
"""What is told and is no reason to refuse a row."""
ISSUES = DROPS | CHANGES | REMARKS
"""All that can happen to a row, with its description."""

_EXAMPLES = 10


@dataclass
class SplitReport:
    """Counts of one split. `issues` counts rows by the names in `ISSUES`."""

    read: int = 0
    kept: int = 0
    prompt_tokens: int = 0
    chosen_tokens: int = 0
    rejected_tokens: int = 0
    longest: int = 0
    """Tokens of the longest side, prompt included."""
    issues: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    """The first rows with each issue, as file and row."""
    kinds: dict[str, int] = field(default_factory=dict)
    """Rows by how they are written: texts, conversations."""
    ignored: dict[str, int] = field(default_factory=dict)
    """Rows in which a column holds something that is not read, by column."""

    def note(self, issue: str, where: str) -> None:
        """Count `issue` for the row at `where`."""
        self.issues[issue] = self.issues.get(issue, 0) + 1
        examples = self.examples.setdefault(issue, [])
        if len(examples) < _EXAMPLES:
            examples.append(where)

    def note_columns(self, pair: Pair) -> None:
        """Count how a row is written, and the columns that are not read."""
        _count(self.kinds, {"conversations" if pair.is_conversation else "texts": 1})
        _count(self.ignored, dict.fromkeys(pair.ignored, 1))

    def keep(self, prompt: int, chosen: int, rejected: int) -> None:
        """Count a usable row with its numbers of tokens."""
        self.kept += 1
        self.prompt_tokens += prompt
        self.chosen_tokens += chosen
        self.rejected_tokens += rejected
        self.longest = max(self.longest, prompt + max(chosen, rejected))

    def add(self, later: Self) -> None:
        """Add the counts of `later`, whose rows follow these."""
        for name in ("read", "kept", "prompt_tokens", "chosen_tokens", "rejected_tokens"):
            setattr(self, name, getattr(self, name) + getattr(later, name))
        self.longest = max(self.longest, later.longest)
        _count(self.kinds, later.kinds)
        _count(self.ignored, later.ignored)
        for issue, count in later.issues.items():
            self.issues[issue] = self.issues.get(issue, 0) + count
            examples = self.examples.setdefault(issue, [])
            examples += later.examples[issue][: _EXAMPLES - len(examples)]

    @property
    def dropped(self) -> int:
        """Rows that are not used."""
        return sum(self.issues.get(issue, 0) for issue in DROPS)

    @property
    def tokens(self) -> int:
        """Stored tokens: each prompt once, and both completions."""
        return self.prompt_tokens + self.chosen_tokens + self.rejected_tokens

    def problems(self) -> list[str]:
        """A line per reason to drop or change rows, with the first rows it affects."""
        lines = self._lines(DROPS | CHANGES)
        if len(self.kinds) > 1:
            mixture = " and ".join(f"{count} {name}" for name, count in self.kinds.items())
            lines.append(f"a mixture: {mixture}, which reach the model in different form")
        return lines

    def remarks(self) -> list[str]:
        """What is told besides, columns that are not read among it."""
        lines = self._lines(REMARKS)
        if self.ignored:
            names = (
                name if count == self.read else f"{name} ({count} rows)"
                for name, count in self.ignored.items()
            )
            lines.append(f"columns not read: {', '.join(names)}")
        return lines

    def _lines(self, issues: Mapping[str, str]) -> list[str]:
        return [
            f"{self.issues[issue]} × {text} ({self._examples(issue)})"
            for issue, text in issues.items()
            if self.issues.get(issue)
        ]

    def _examples(self, issue: str) -> str:
        examples = self.examples[issue]
        more = ", ..." if self.issues[issue] > len(examples) else ""
        return "; ".join(examples) + more


def _count(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count


@dataclass
class DataReport:
    """The reports of all splits, and whether the pairs came from the cache."""

    splits: dict[str, SplitReport] = field(default_factory=dict)
    cached: bool = False

    def lines(self) -> list[str]:
        """The report as lines of text."""
        lines = []
        for name, split in self.splits.items():
            mean = split.tokens / max(split.kept, 1)
            lines.append(
                f"{name}: {split.kept} of {split.read} pairs, {split.tokens} tokens "
                f"({mean:.0f} a pair, longest side {split.longest})"
            )
            lines += [f"  {line}" for line in (*split.problems(), *split.remarks())]
        return lines

    def to_mapping(self) -> dict[str, Any]:
        """The report as JSON values."""
        splits = {
            name: dataclasses.asdict(split) | {"dropped": split.dropped, "tokens": split.tokens}
            for name, split in self.splits.items()
        }
        return {"cached": self.cached, "splits": splits}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, cached: bool) -> Self:
        """The report that `to_mapping` wrote."""
        names = [f.name for f in dataclasses.fields(SplitReport)]
        return cls(
            {
                split: SplitReport(**{name: counts[name] for name in names})
                for split, counts in values["splits"].items()
            },
            cached,
        )
