"""How many rows of a data set were used, changed or dropped, and which."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

DROPS = {
    "identical": "dropped: chosen and rejected are the same tokens",
    "empty": "dropped: a completion has no token to score",
    "no_prompt": "dropped: the sides share no token of prompt to predict from",
    "no_room": "dropped: the token budget leaves no more of a completion than its end of turn",
}
CHANGES = {
    "prompt_cut": "prompt cut on the left to fit the token budget",
    "completion_cut": "completion cut to fit the token budget, its end of turn preserved",
    "not_prefix": "prompt is not a prefix of prompt + completion: "
    "every token after the common prefix is scored",
}
ISSUES = DROPS | CHANGES
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

    def note(self, issue: str, where: str) -> None:
        """Count `issue` for the row at `where`."""
        self.issues[issue] = self.issues.get(issue, 0) + 1
        examples = self.examples.setdefault(issue, [])
        if len(examples) < _EXAMPLES:
            examples.append(where)

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
        """A line per issue that occurred, with the first rows it affects."""
        return [
            f"{self.issues[issue]} × {text} ({self._examples(issue)})"
            for issue, text in ISSUES.items()
            if self.issues.get(issue)
        ]

    def _examples(self, issue: str) -> str:
        examples = self.examples[issue]
        more = ", ..." if self.issues[issue] > len(examples) else ""
        return "; ".join(examples) + more


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
            lines += [f"  {problem}" for problem in split.problems()]
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
