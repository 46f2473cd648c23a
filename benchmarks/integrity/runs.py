"""Commands killed at random until they end, and two of them started at once."""

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.integrity.children import computed_by_children, wait
from benchmarks.integrity.commands import (
    COMMANDS,
    PAIRS,
    Command,
    Inputs,
    begin,
    emptied,
    hidden,
    run,
)

_ENOUGH_KILLS = 12
"""After so many in one chain the command may come to its end."""
_OVER = ("so nothing is left", "is there and not an empty folder")
"""What a command says that was killed when its result was in place, and before it ended."""


@dataclass
class Chains:
    """Kills of one command, and what was wrong after them."""

    command: Command
    inputs: Inputs
    folder: Path
    kills: int = 0
    chains: int = 0
    most_leftovers: int = 0
    """Hidden files and folders after a kill; those of one process may lie there."""
    wrong: list[str] = field(default_factory=list)

    def measure(self) -> None:
        """The command undisturbed: the seconds that it computes, and what it leaves."""
        place = emptied(self.folder / "whole")
        run(self.command.line(self.inputs, place), self.folder / "log")  # the caches are full now
        place = emptied(place)
        before = computed_by_children()
        run(self.command.line(self.inputs, place), self.folder / "log")
        self.seconds = computed_by_children() - before
        self.expected = self.command.products(place)
        assert self.expected, "the command leaves nothing to compare"

    def chain(self, most: int, chance: Random) -> None:
        """Start, kill, start again, until an end is reached or enough kills were."""
        place = emptied(self.folder / "place")
        for kill in range(most + 1):
            limit = 600.0 if kill == most else chance.uniform(0, 1.1 * self.seconds)
            line = self.command.line(self.inputs, place)
            code = wait(begin(line, self.folder / "log"), limit, standing=60.0)
            if code is not None:
                self._compare(place, code)
                break
            self.kills += 1
            self.most_leftovers = max(self.most_leftovers, len(hidden(place)))
        self.chains += 1

    def _compare(self, place: Path, code: int) -> None:
        said = (self.folder / "log").read_text()
        if code and not any(words in said for words in _OVER):
            self.wrong.append(f"exit {code}: {said[-300:]}")
            return
        found = self.command.products(place)
        if found != self.expected:
            names = {n for n in {*found, *self.expected} if found.get(n) != self.expected.get(n)}
            self.wrong.append(f"other ends: {sorted(names)[:5]}")
        if left := hidden(place):
            self.wrong.append(f"left behind: {[path.name for path in left][:5]}")


def kills(name: str, count: int, inputs: Inputs, folder: Path, seed: int) -> dict[str, Any]:
    """A command, killed so many times."""
    chains, chance = Chains(COMMANDS[name], inputs, folder), Random(seed)
    chains.measure()
    while chains.kills < count:
        chains.chain(min(_ENOUGH_KILLS, count - chains.kills), chance)
    return {
        "kills": chains.kills,
        "chains": chains.chains,
        "cpu_seconds_undisturbed": round(chains.seconds, 2),
        "most_leftovers_after_a_kill": chains.most_leftovers,
        "wrong": chains.wrong,
    }


def pairs(name: str, count: int, inputs: Inputs, folder: Path, seed: int) -> dict[str, Any]:
    """Two commands on one place, started at nearly the same time; each is right or refused."""
    both, chance = PAIRS[name], Random(seed)
    counts: Counter[str] = Counter()
    expected = [_alone(command, inputs, emptied(folder)) for command in both]
    for _ in range(count):
        counts.update(_at_once(both, inputs, emptied(folder), expected, chance))
    return dict(counts)


def _alone(command: Command, inputs: Inputs, place: Path) -> dict[str, bytes]:
    run(command.line(inputs, place), place.with_suffix(".log"))
    return command.products(place)


def _at_once(
    both: tuple[Command, Command],
    inputs: Inputs,
    place: Path,
    expected: list[dict[str, bytes]],
    chance: Random,
) -> list[str]:
    logs = [place.with_suffix(f".{number}.log") for number in (0, 1)]
    lines = [command.line(inputs, place) for command in both]
    children = []
    for line, log in zip(lines, logs, strict=True):
        children.append(begin(line, log))
        time.sleep(chance.choice((0.0, 0.05, 0.3)))
    codes = [wait(child, 300) for child in children]
    return [
        _judged(code, log.read_text(), command.products(place) if code == 0 else {}, wanted)
        for code, log, command, wanted in zip(codes, logs, both, expected, strict=True)
    ]


def _judged(
    code: int | None, text: str, found: dict[str, bytes], expected: dict[str, bytes]
) -> str:
    """Right: what the command alone leaves is there. Refused: exit 2 and the true reason."""
    if code == 0:
        right = all(found.get(name) == value for name, value in expected.items())
        return "right" if right else "wrong result"
    lines = text.strip().splitlines() or [""]
    true = "free some space" not in lines[-1] and "Traceback" not in text
    return "refused" if code == 2 and true else f"exit {code}: {lines[-1][:200]}"
