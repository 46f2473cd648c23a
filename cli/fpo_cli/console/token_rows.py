"""The tokens of inspected pairs, coloured by what they are."""

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from fpo_core.data.inspect import InspectedRow, Kind, Segment
from fpo_core.io.foreign_text import for_terminal

STYLES: dict[Kind, tuple[str, str]] = {
    "prompt": ("cyan", "cyan underline"),
    "completion": ("green", "green underline"),
    "padding": ("bright_black", "bright_black"),
}
"""Two alternating styles per kind, which show where a token ends."""


def render(rows: Iterable[InspectedRow], console: Console) -> None:
    """Print rows on a rich console: prompt cyan, scored tokens green, padding as grey dots."""
    for row in rows:
        for side in row.sides:
            counts = ", ".join(f"{len(s.ids)} {s.kind}" for s in side.segments)
            line = Text().append(f"row {row.row} {side.side} ({counts} tokens)\n", "bold")
            for segment in side.segments:
                for i, token in enumerate(_shown(segment)):
                    line.append(token, STYLES[segment.kind][i % 2])
            console.print(line, end="\n\n", soft_wrap=True)


def _shown(segment: Segment) -> list[str]:
    if segment.kind == "padding":
        return ["·" * min(len(segment.ids), 40)]
    return [for_terminal(token, keep="\n").replace("\n", "⏎\n") for token in segment.tokens]
