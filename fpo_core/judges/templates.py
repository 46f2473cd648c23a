"""What an endpoint is asked about answers, and how its reply is read."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fpo_core.errors import ConfigError
from fpo_core.io.regular import read_yaml
from fpo_core.judges.judge import NO_VERDICT

SHIPPED = Path(__file__).with_name("templates.yaml")
REPLIES = ("letter", "bracket", "grade")
_LETTER = re.compile(r"\W*(?:answer|output|model)?\W*(A|B|C|tie)\W*", re.IGNORECASE)
_VERDICT = re.compile(r"\[\[\s*(A>>B|A>B|A=B|B=A|B>A|B>>A|A|B|C|tie)\s*\]\]", re.IGNORECASE)
_GRADE = re.compile(r"\[\[\s*(\d+(?:\.\d+)?)\s*\]\]")
_PREFERENCES = {
    **{"a>>b": 1.0, "a>b": 0.75, "a=b": 0.5, "b=a": 0.5, "b>a": 0.25, "b>>a": 0.0},
    **{"a": 1.0, "b": 0.0, "c": 0.5, "tie": 0.5},
}
_LEAST_MASS = 0.1
"""Probability of A, B and tie together under which a reply is read by its text."""


@dataclass(frozen=True)
class Reply:
    """What an endpoint said."""

    text: str
    letters: Mapping[str, float] | None = None
    """Log-probabilities of its first token, by text, where the server gives them."""


@dataclass(frozen=True)
class Template:
    """A question about one answer, or about two."""

    name: str
    reply: str
    """letter: A, B, C or tie. bracket: [[A>>B]] to [[B>>A]], or [[A]]. grade: [[1]] to [[10]]."""
    max_tokens: int
    user: str
    system: str = ""

    @property
    def compares(self) -> bool:
        """Whether it asks about two answers."""
        return self.reply != "grade"

    @property
    def reminder(self) -> str:
        """What to add where a reply could not be read."""
        return {
            "letter": "Write A or B alone.",
            "bracket": "Write your verdict alone, such as [[A>B]].",
            "grade": "Write the rating alone, such as [[5]].",
        }[self.reply]

    def messages(self, texts: Mapping[str, str]) -> list[dict[str, str]]:
        """The question as a chat; braces inside the texts stay as they are."""
        pattern = re.compile("|".join(re.escape(f"{{{name}}}") for name in texts))
        user = pattern.sub(lambda match: texts[match[0][1:-1]], self.user)
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": user}]

    def read(self, reply: Reply) -> float:
        """The preference for A in [0, 1], or the grade; NaN where the reply says neither."""
        if self.reply == "grade":
            matches = _GRADE.findall(reply.text)
            return float(matches[-1]) if matches and 0 <= float(matches[-1]) <= 10 else NO_VERDICT
        if self.reply == "bracket":
            matches = _VERDICT.findall(reply.text)
            return _PREFERENCES[matches[-1].lower()] if matches else NO_VERDICT
        soft = _soft(reply.letters) if reply.letters else NO_VERDICT
        if not math.isnan(soft):
            return soft
        match = _LETTER.fullmatch(reply.text)
        return _PREFERENCES[match[1].lower()] if match else NO_VERDICT


def _soft(logprobs: Mapping[str, float]) -> float:
    """P(A) and half of P(tie), of what A, B and tie have together."""
    mass = dict.fromkeys(("A", "B", "C", "tie"), 0.0)
    for token, logprob in logprobs.items():
        name = token.strip().replace("Tie", "tie")
        if name in mass:
            mass[name] += math.exp(min(logprob, 0.0))
    ties, total = mass["C"] + mass["tie"], sum(mass.values())
    return (mass["A"] + ties / 2) / total if total >= _LEAST_MASS else NO_VERDICT


def template_of(spec: str) -> Template:
    """A shipped template by its name, or one of a YAML file.

    Raises ConfigError where the file lacks keys, or asks about no answer.
    """
    shipped: dict[str, Any] = read_yaml(SHIPPED, ConfigError)
    path = Path(spec)
    if spec in shipped:
        values = shipped[spec]
    elif path.suffix in (".yaml", ".yml"):
        values = read_yaml(path, ConfigError)
    else:
        names = ", ".join(shipped)
        raise ConfigError(f"judge_template is {spec}, expected one of {names}, or a YAML file")
    return _checked(spec, values)


def _checked(name: str, values: Any) -> Template:
    known = {field.name for field in fields(Template)} - {"name"}
    if not isinstance(values, dict) or not {"reply", "user"} <= {*values} <= known:
        raise ConfigError(
            f"{name} has not the keys of a template, expected reply and user, perhaps system and "
            "max_tokens"
        )
    template = Template(name=name, **{"max_tokens": 16, **values})
    if template.reply not in REPLIES:
        raise ConfigError(
            f"{name} has the reply {template.reply!r}, expected one of {', '.join(REPLIES)}"
        )
    if not isinstance(template.user, str) or not isinstance(template.system, str):
        raise ConfigError(f"{name} has a user or system that is not text, expected what to ask")
    wanted = ("{a}", "{b}") if template.compares else ("{answer}",)
    for place in ("{prompt}", *wanted):
        if place not in template.user:
            raise ConfigError(f"{name} has no {place} in user, expected where to put that text")
    return template
