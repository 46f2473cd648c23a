"""Log-probabilities of tiny models against transformers' own: the table of families in the docs.

    python benchmarks/compare_families.py            print the table
    python benchmarks/compare_families.py --write    put it into docs/backends.md

Families, both layouts of a folder, lengths within the window and beyond it, both backends, packed
and plain steps; models are random, in float32, on the CPU.
"""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "convert"), str(ROOT / "cli")]

from tests.fast_blas import load_fast_blas  # noqa: E402

load_fast_blas()  # before anything imports mlx

from fpo_core.config import StepConfig  # noqa: E402
from fpo_core.errors import FpoError  # noqa: E402
from tests.backends import family_matrix  # noqa: E402
from tests.helpers import BACKENDS  # noqa: E402

PAGE = ROOT / "docs" / "backends.md"
BEGIN, END = "<!-- families -->", "<!-- /families -->"
LENGTHS = (family_matrix.SHORT, family_matrix.BEYOND)
HEAD = ("family", "hub, short", "hub, beyond", "transformers 5, short", "transformers 5, beyond")


def largest_gap(backend: str, folder: Path, sizes: tuple[int, int]) -> float:
    """Relative to the largest |log π|, over the packed step and the plain one."""
    data = family_matrix.pairs(sizes)
    expected = family_matrix.expected_logps(folder, data)
    steps = (StepConfig(), StepConfig(plain=True))
    policies = (family_matrix.open_model(backend, folder, step) for step in steps)
    return max(family_matrix.gap(policy, data, expected) for policy in policies)


def cell(folder: Path, sizes: tuple[int, int], refusals: list[str]) -> str:
    """`torch / mlx`: a gap, or the number of the refusal that the backend raises."""
    shown = []
    for backend in BACKENDS:
        try:
            shown.append(f"{largest_gap(backend, folder, sizes):.0e}")
        except FpoError as error:
            reason = str(error).replace(f" in {folder}", "")
            if reason not in refusals:
                refusals.append(reason)
            shown.append(f"refused ({refusals.index(reason) + 1})")
    return " / ".join(shown)


def table() -> str:
    """The table in Markdown, and what refusals say."""
    refusals: list[str] = []
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for family in family_matrix.FAMILIES:
        cells = []
        for layout in family_matrix.LAYOUTS:
            with tempfile.TemporaryDirectory() as temporary:
                folder = family_matrix.write(family, Path(temporary) / "model", layout)
                cells += [cell(folder, sizes, refusals) for sizes in LENGTHS]
        lines.append(f"| {family} | {' | '.join(cells)} |")
    notes = [f"{number}. {reason}" for number, reason in enumerate(refusals, start=1)]
    return "\n".join([*lines, "", *notes])


if __name__ == "__main__":
    result = table()
    print(result)
    if "--write" in sys.argv[1:]:
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        after = rest.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n{result}\n{END}{after}", encoding="utf-8")
