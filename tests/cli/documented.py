"""The commands that README, docs and examples tell a reader to type."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAMS = ("fpo", "python", "torchrun", "mlx.launch", "sh", "make", "pip", "hf")
_BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```$|(?:^\n(?: {4}[^\n]*\n)+)", re.M | re.S)
_SPAN = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Documented:
    """A command, without its comment, and the document that has it."""

    document: str
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        """As written, but for comments, white space and quotes that were not needed."""
        return shlex.join(self.words)

    @property
    def of_fpo(self) -> tuple[str, ...] | None:
        """What `fpo` gets, whether by name, as a module or by a launcher; None if nothing."""
        words = self.words
        if words[0] == "fpo":
            return words[1:]
        module = ("-m", "fpo_cli")
        at = next((i for i in range(len(words)) if words[i : i + 2] == module), None)
        return None if at is None else words[at + 2 :]


def documents() -> list[str]:
    """README, docs but the generated page, and the examples' own pages and settings."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found += sorted((ROOT / "examples").rglob("README.md"))
    found += sorted((ROOT / "examples").rglob("*.yaml"))
    return [str(p.relative_to(ROOT)) for p in found if p.name != "cli.md"]


def commands(document: str) -> list[Documented]:
    """Every command of a document in its order."""
    return [Documented(document, words) for words in commands_in((ROOT / document).read_text())]


def commands_in(text: str) -> list[tuple[str, ...]]:
    """Words of each command in Markdown's code blocks and, with an option, in its code spans.

    Text without such marks, as the comments of a YAML file, is read line by line.
    """
    found: list[tuple[str, ...]] = []
    end = 0
    for block in _BLOCK.finditer(text):
        found += _in_prose(text[end : block.start()])
        found += _in_lines(block[1] if block[1] is not None else block[0])
        end = block.end()
    return [*found, *_in_prose(text[end:])]


def _in_lines(block: str) -> Iterator[tuple[str, ...]]:
    joined = re.sub(r"\\\n\s*", "", block)
    bare = re.sub(r"^\s*(\w+=\S+\s+)*", "", joined, flags=re.M)  # variables of the environment
    for line in bare.splitlines():
        if _calls(line):
            yield tuple(shlex.split(line, comments=True))


def _in_prose(text: str) -> Iterator[tuple[str, ...]]:
    """Spans of code with an option: `fpo train` alone names a command, and is not to be typed."""
    commented = re.findall(r"^#[^`]*?\b(fpo \w+ -[^`]*?)$", text, re.M)
    for span in [*commented, *_SPAN.findall(text)]:
        words = tuple(shlex.split(span)) if _calls(span) else ()
        if any(word.startswith("-") or "=" in word for word in words):
            yield words


def _calls(line: str) -> bool:
    return line.partition(" ")[0].strip() in PROGRAMS
