"""Goal-conditioned prompts and the rows of reward-augmented data (Zhang et al., arXiv 2410.08067).

A pair with the scores r_w and r_l becomes two rows. Under the reward −(g − r)², the goal g = r_w
prefers y_w, and g = r_l prefers y_l: there the sides are swapped.
"""

import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from fpo_core.errors import ConfigError, DataError
from fpo_core.io.atomic import write_json
from fpo_core.io.regular import read_json_object
from fpo_core.pairs.messages import Message, Text
from fpo_core.pairs.pair import Pair

GOAL_FILE = "goal.json"
_FORMAT, _VERSION = "fpo-goal", 1


@dataclass(frozen=True)
class GoalTemplate:
    """How a prompt asks for a score."""

    text: str
    """With {goal}, and perhaps {low} and {high}, to be filled in."""
    low: float
    high: float
    system: bool = False
    """As a system message, or before the user's turn."""

    def sentence(self, goal: float) -> str:
        """The text for a goal. Raises ConfigError for one outside the scale."""
        if not self.low <= goal <= self.high:
            raise ConfigError(
                f"the goal is {goal:g}, expected one from {self.low:g} to {self.high:g}: choose it "
                "on the scale that the data has"
            )
        values = {"{goal}": goal, "{low}": self.low, "{high}": self.high}
        text = self.text
        for name, value in values.items():
            text = text.replace(name, _number(value))
        return text

    def prompt(self, prompt: Text, goal: float, where: str = "") -> Text:
        """A prompt, as text or messages, that asks for a goal. DataError for a system text."""
        asked = self.sentence(goal)
        if isinstance(prompt, str):
            if self.system:
                raise DataError(
                    f"{where}: the prompt is text, which has no system message: set goal_role to "
                    "user"
                )
            return f"{asked}\n{prompt}"
        role = "system" if self.system else "user"
        at = next((i for i, message in enumerate(prompt) if message["role"] == role), None)
        if at is None:
            return [{"role": role, "content": asked}, *prompt]
        # After what a system message says already, and before what a user asks.
        parts = [prompt[at]["content"], asked] if self.system else [asked, prompt[at]["content"]]
        changed: Message = prompt[at] | {"content": "\n".join(parts)}
        return [*prompt[:at], changed, *prompt[at + 1 :]]

    def pair(self, pair: Pair, goal: float) -> Pair:
        """A pair whose prompt asks for a goal."""
        prompt, chosen, rejected = pair.split()
        asked = self.prompt(prompt, goal, pair.where)
        return replace(pair, prompt=asked, chosen=chosen, rejected=rejected)

    def augment(self, pair: Pair, scores: tuple[float, float], *, swap: bool) -> Iterator[Pair]:
        """The two rows of a pair whose completions have these scores, chosen first.

        Without `swap` the second row prefers the chosen side too: a control, in which the goal
        says nothing.
        """
        first, second = (self.pair(pair, goal) for goal in scores)
        yield first
        if swap:
            second = replace(second, chosen=second.rejected, rejected=second.chosen)
        yield second

    def write(self, folder: Path) -> None:
        """Leave the template in a folder."""
        write_json(folder / GOAL_FILE, {"format": _FORMAT, "version": _VERSION, **asdict(self)})

    @classmethod
    def read(cls, path: Path) -> Self:
        """The template of a file; DataError where it is none."""
        values = read_json_object(path, lambda text: DataError(str(text)))
        try:
            if (values.pop("format"), values.pop("version")) != (_FORMAT, _VERSION):
                raise ValueError(f"is not {_FORMAT} version {_VERSION}")
            template = cls(**values)
            if "{goal}" not in template.text or not template.low < template.high:
                raise ValueError("has no {goal} or no scale")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} is no goal template ({error}), expected what data augment writes: make "
                "the data anew"
            ) from None
        return template


def _number(value: float) -> str:
    """A whole number without its point, others with at most two places."""
    return f"{value:.0f}" if math.isclose(value, round(value)) else f"{value:.2f}".rstrip("0")


def find_template(*places: str | None) -> GoalTemplate | None:
    """The template in the first of these folders, or the one above it, that holds one."""
    for place in places:
        folder = Path(place or "").expanduser()
        for near in (folder, folder.parent) if place and folder.is_dir() else ():
            if (near / GOAL_FILE).is_file():
                return GoalTemplate.read(near / GOAL_FILE)
    return None


def require_template(*places: str | None) -> GoalTemplate:
    """The same; ConfigError where there is none."""
    template = find_template(*places)
    if template is None:
        raise ConfigError(
            f"goal is set, but there is no {GOAL_FILE} beside the model or its adapter: only one "
            "trained on augmented data knows goals, so leave it out"
        )
    return template


def pass_on(source: str, target: Path) -> None:
    """Copy the template of data, or of a model, to what is made from it; remove an earlier one."""
    place = Path(source).expanduser()
    file = (place.parent if place.is_file() else place) / GOAL_FILE
    if file.is_file():
        shutil.copyfile(file, target / GOAL_FILE)
    else:
        (target / GOAL_FILE).unlink(missing_ok=True)


def row_of(pair: Pair) -> dict[str, Any]:
    """A pair as a row in TRL's format."""
    values = {name: getattr(pair, name) for name in ("prompt", "chosen", "rejected")}
    others = {"tools": pair.tools, "chat_template_kwargs": pair.chat_template_kwargs}
    return values | {name: value for name, value in others.items() if value}
