"""The table of docs/federated.md, from results/federated.json.

Run: python -m benchmarks.federated_tables, which writes it between its marks.
"""

import re
from typing import Any

from benchmarks.record import ROOT, read_result

PAGE = ROOT / "docs" / "federated.md"
_HEAD = ("", "seeds", "sent", "mixture", "worst client", "validation", "oracle")


def _spread(values: list[float]) -> str:
    return f"{sum(values) / len(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


def table(rows: list[dict[str, Any]]) -> str:
    """A row an arm, in the order of the file."""
    lines = ["| " + " | ".join(_HEAD) + " |", "|---" * len(_HEAD) + "|"]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        runs = [row for row in rows if row["arm"] == arm]
        columns = [[run[name] for run in runs] for name in ("mixture", "worst_client")]
        columns += [[run["forms"]["all"] for run in runs], [run["oracle"] for run in runs]]
        sent = {run["bytes"] for run in runs}
        cells = [arm, str(len(runs)), f"{max(sent) / 2**20:.2f} MiB", *map(_spread, columns)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def filled(text: str, rows: Any) -> str:
    """The page's text with the table between its marks."""
    body = f"<!-- world -->\n\n{table(rows)}\n\n<!-- end of world -->"
    return re.sub("<!-- world -->.*?<!-- end of world -->", body, text, flags=re.S)


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(filled(page, read_result("federated")), encoding="utf-8")
