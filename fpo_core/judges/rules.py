"""Verifiable instructions in the manner of IFEval (arXiv 2311.07911): checks that code can make."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpo_core.errors import ConfigError
from fpo_core.io.regular import parse_json, read_lines, read_yaml
from fpo_core.judges.judge import ScoringJudge
from fpo_core.judges.languages import LANGUAGES, language_of

Check = Callable[[str], bool]


@dataclass(frozen=True)
class Rule:
    """One check of a completion."""

    kind: str
    passes: Check


def _between(bounds: Any) -> Callable[[int], bool]:
    """[least, most], either of them null, or one number that is meant exactly."""
    least, most = bounds if isinstance(bounds, list) else (bounds, bounds)
    if not all(
        b is None or (isinstance(b, int) and not isinstance(b, bool)) for b in (least, most)
    ):
        raise ValueError("expected a whole number, or [least, most] with null for no bound")
    return lambda n: (least is None or n >= least) and (most is None or n <= most)


def _count(pattern: str, flags: int = 0) -> Callable[[Any], Check]:
    find = re.compile(pattern, flags)

    def rule(bounds: Any) -> Check:
        fits = _between(bounds)
        return lambda text: fits(len(find.findall(text)))

    return rule


def _phrases(holds: Callable[[Any], bool]) -> Callable[[Any], Check]:
    """One phrase or a list, of which `holds` says how many must occur, in upper or lower case."""

    def rule(value: Any) -> Check:
        words = _words(value)
        return lambda text: holds(word in text.casefold() for word in words)

    return rule


def _words(value: Any) -> list[str]:
    return [_text(word).casefold() for word in (value if isinstance(value, list) else [value])]


_LETTER = r"[^\W\u0e00-\U0010ffff]"
"""A letter of a script that puts spaces between words."""


def _lacks(value: Any) -> Check:
    """None of the phrases as whole words, as IFEval forbids them, in upper or lower case."""
    found = [
        re.compile(
            (rf"(?<!{_LETTER})" if re.match(_LETTER, word) else "")
            + re.escape(word)
            + (rf"(?!{_LETTER})" if re.match(_LETTER, word[-1]) else "")
        )
        for word in _words(value)
    ]
    return lambda text: not any(pattern.search(text.casefold()) for pattern in found)


def _sentences(bounds: Any) -> Check:
    """Parts with a word between marks that end one: a mark within a number or a name does not."""
    fits = _between(bounds)
    end = re.compile(r"(?<=[.!?…])[\"'”’»)\]*_]*\s+")
    return lambda text: fits(sum(re.search(r"\w", part) is not None for part in end.split(text)))


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("expected text")
    return value


def _regex(value: Any) -> Check:
    try:
        pattern = re.compile(_text(value), re.DOTALL)
    except re.error as error:
        raise ValueError(f"no regular expression ({error})") from None
    return lambda text: pattern.search(text) is not None


def _json(value: Any) -> Check:
    """JSON, perhaps in a fence of code; as a list, an object with these keys."""
    keys = value if isinstance(value, list) else []

    def check(text: str) -> bool:
        fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", text.strip(), re.DOTALL)
        try:
            parsed = json.loads(fenced[1] if fenced else text)
        except (ValueError, RecursionError):
            return False
        return not keys or (isinstance(parsed, dict) and all(key in parsed for key in keys))

    return check if value is not False else lambda text: not check(text)


def _case(value: Any) -> Check:
    if value not in ("upper", "lower"):
        raise ValueError("expected upper or lower")
    return str.isupper if value == "upper" else str.islower


def _language(value: Any) -> Check:
    if value not in LANGUAGES:
        raise ValueError(f"expected one of {', '.join(LANGUAGES)}")
    return lambda text: language_of(text) == value


def _quoted(value: Any) -> Check:
    wanted = value is not False
    pattern = re.compile(r'\s*["“«].+["”»]\s*', re.DOTALL)
    return lambda text: (pattern.fullmatch(text) is not None) is wanted


KINDS: dict[str, Callable[[Any], Check]] = {
    "regex": _regex,
    "json": _json,
    "language": _language,
    "case": _case,
    "quoted": _quoted,
    "contains": _phrases(all),
    "contains_any": _phrases(any),
    "lacks": _lacks,
    "starts_with": lambda value: _regex(rf"\A\s*{re.escape(_text(value))}"),
    "ends_with": lambda value: _regex(rf"{re.escape(_text(value))}\s*\Z"),
    "characters": _count(r".", re.DOTALL),
    "words": _count(r"\S+"),
    "sentences": _sentences,
    "paragraphs": _count(r"(?:[^\n]*\S[^\n]*\n?)+"),
    "bullets": _count(r"^\s*[-*•] ", re.MULTILINE),
    "commas": _count(r","),
    "exclamations": _count(r"!"),
}
"""What a rule may ask, and how its value becomes a check; counts take a number or [least, most]."""


def rule(kind: str, value: Any, where: str) -> Rule:
    """A rule by its kind and value. Raises ConfigError naming `where` for one that is none."""
    if kind not in KINDS:
        raise ConfigError(f"{where} has the rule {kind!r}, expected one of {', '.join(KINDS)}")
    try:
        return Rule(kind, KINDS[kind](value))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where} has the rule {kind}: {value!r}, {error}") from None


class RulesJudge(ScoringJudge):
    """Scores the share of rules that a completion follows; an empty one follows none."""

    def __init__(
        self, rules: Sequence[Rule], name: str, by_prompt: dict[str, list[Rule]] | None = None
    ) -> None:
        """`rules` are for all completions, those of `by_prompt` for the answers to one prompt."""
        self._rules, self.name, self._by_prompt = list(rules), name, by_prompt or {}

    def score_one(self, prompt: str, completion: str) -> float:
        """See `Judge`. Raises ConfigError for a prompt that has no rules."""
        rules = [*self._rules, *self._by_prompt.get(prompt, ())]
        if not rules:
            raise ConfigError(
                f"{self.name} has no rules for the prompt {prompt[:60]!r}: add a row for it, or "
                "rules for every prompt"
            )
        if not completion.strip():
            return 0.0
        return sum(rule.passes(completion) for rule in rules) / len(rules)


def read_rules(path: Path) -> RulesJudge:
    """The judge of a file of rules.

    YAML: a list of objects such as `words: [10, 50]`. JSONL: an object a line with a `prompt` and
    its `rules`. Raises ConfigError for rules that are none.
    """
    if path.suffix != ".jsonl":
        return RulesJudge(_rules(read_yaml(path, ConfigError), str(path)), path.name)
    by_prompt: dict[str, list[Rule]] = {}
    for line, where in read_lines(path, ConfigError):
        row = parse_json(line, where, ConfigError)
        if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
            raise ConfigError(f"{where} has no prompt, expected an object of prompt and rules")
        by_prompt.setdefault(row["prompt"], []).extend(_rules(row.get("rules"), where))
    return RulesJudge([], path.name, by_prompt)


def _rules(value: Any, where: str) -> list[Rule]:
    items = [value] if isinstance(value, dict) else value
    if not isinstance(items, list) or not items or not all(isinstance(i, dict) for i in items):
        raise ConfigError(
            f"{where} holds no list of rules, expected lines like `- words: [10, 50]`"
        )
    return [rule(kind, argument, where) for item in items for kind, argument in item.items()]
