"""What workflows return: typed values that become JSON, and tables for terminals and notebooks."""

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """Text in rows under a head, numbers to the right of their column; lines of text below it."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    below: Sequence[str] = ()

    def html(self) -> str:
        """The table for a notebook. Every cell is escaped: samples may hold any characters."""
        head = "".join(f"<th>{html.escape(text)}</th>" for text in self.head)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row) + "</tr>"
            for row in self.rows
        )
        below = "".join(f"<p>{html.escape(text)}</p>" for text in self.below)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{below}"


class Result:
    """What a workflow came to. In a notebook, the last value of a cell shows as its `table`."""

    def to_mapping(self) -> dict[str, Any]:
        """The result as JSON values: by default of all its fields."""
        return _plain(vars(self))

    def table(self) -> Table:
        """What a person looks at; by default every value that is not itself a collection."""
        rows = [
            (name, shown(value))
            for name, value in self.to_mapping().items()
            if not isinstance(value, Mapping | list | tuple)
        ]
        return Table(("", ""), rows)

    def to_json(self) -> str:
        """The result as JSON text; numbers that are not finite become null."""
        return to_json(self.to_mapping())

    def _repr_html_(self) -> str:
        return self.table().html()


def shown(value: Any) -> str:
    """A value as a cell of a table."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def to_json(values: Mapping[str, Any]) -> str:
    """JSON text of a mapping; numbers that are not finite become null, and paths text."""
    return json.dumps(_plain(values), indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bool | int | str | None):
        return value
    if is_dataclass(value):
        return _plain(getattr(value, "to_mapping", lambda: vars(value))())
    # NumPy scalars have `item`; whatever else there is, such as a path, becomes text.
    return _plain(value.item()) if hasattr(value, "item") else str(value)
