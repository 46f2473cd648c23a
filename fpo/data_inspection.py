"""What the model sees of preference pairs."""

import html
from dataclasses import dataclass

from fpo.results import Result, Table
from fpo.workflow import workflow
from fpo_core.config import DataConfig, InspectConfig
from fpo_core.data.inspect import InspectedRow, Segment, inspect_rows
from fpo_core.data.load import load_data
from fpo_core.data.report import DataReport
from fpo_core.data.tokenizer import load_tokenizer
from fpo_core.errors import DataError

_COLOURS = {"prompt": "#1b7f9c", "completion": "#2a7d2a", "padding": "#999"}


@dataclass(frozen=True)
class DataInspection(Result):
    """Tokens of some pairs, and what became of all rows."""

    report: DataReport
    split: str
    rows: list[InspectedRow]

    def table(self) -> Table:
        """The counts of all rows, in sentences."""
        return Table((), (), self.report.lines())

    def _repr_html_(self) -> str:
        sides = "".join(
            f"<p>row {row.row} {side.side}</p><pre>{''.join(map(_marked, side.segments))}</pre>"
            for row in self.rows
            for side in row.sides
        )
        return sides + super()._repr_html_()


@workflow(InspectConfig)
def inspect_data(config: InspectConfig) -> DataInspection:
    """Tokens of pairs with prompt, completion and padding marked, and counts of all rows.

    Completion tokens are those that are scored. Raises DataError where there is no such pair.
    """
    tokenizer = load_tokenizer(config.model, config.revision, config.trust_remote_code)
    data = load_data(config.only(DataConfig), tokenizer, config.seed)
    split = data.train if config.split == "train" else data.valid
    if split is None:
        raise DataError(f"{config.data} has no validation pairs: set valid_fraction")
    if config.start >= len(split):
        raise DataError(f"start is {config.start}, but there are {len(split)} pairs, from 0")
    rows = inspect_rows(split, tokenizer, config.rows, config.start)
    return DataInspection(data.report, config.split, rows)


def _marked(segment: Segment) -> str:
    """A segment in its colour, every second token underlined so that tokens can be told apart."""
    if segment.kind == "padding":
        return f'<span style="color:{_COLOURS["padding"]}">{"·" * min(len(segment.ids), 40)}</span>'
    lines = ("none", "underline")
    return "".join(
        f'<span style="color:{_COLOURS[segment.kind]};text-decoration:{lines[i % 2]}">'
        f"{html.escape(token)}</span>"
        for i, token in enumerate(segment.tokens)
    )
