"""What docs/federated.md says of measurements, from results/federated.json and -processes.json.

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


def processes(result: dict[str, Any]) -> str:
    """What became of the rounds in which a SuperNode was killed, and a table of memory."""
    rounds, memory = result["rounds"], result["memory_mib"]
    took_part = [len(facts["clients"]) for facts in rounds]
    reasons = [why for facts in rounds for why in facts["left_out"].values()]
    third = len(memory) // 3
    cores, resumed = result["hardware"]["cores"], result["resumed"]
    lines = [
        f"All {len(rounds)} rounds ended, in {result['seconds'] / 60:.0f} minutes on a busy "
        f"machine of {cores} cores; {sum(kill['in_work'] for kill in result['kills'])} kills hit a "
        f"client at work. {min(took_part)} or {max(took_part)} clients took part in each round, "
        f"all {len(result['clients'])} in the evaluation. Left out, by node and reason: "
        f"{sum('Unavailable' in why for why in reasons)} without heartbeat, "
        f"{reasons.count('no answer in time')} without an answer in time, "
        f"{reasons.count('not connected')} not connected when a round began. The server's process "
        f"was killed after round {resumed['killed_after']} and run again: it ended after round "
        f"{resumed['rounds']}, with all rounds before as they were.",
        "",
        "| resident memory, MiB | first third | last third | last by first |",
        "|---|---|---|---|",
    ]
    names = {"link": "SuperLink", "server": "the server's process", "node": "a SuperNode"}
    for key, name in names.items():
        first, last = (
            sum(row[key] for row in part) / third for part in (memory[:third], memory[-third:])
        )
        lines.append(f"| {name} | {first:.1f} | {last:.1f} | {last / first:.3f} |")
    return "\n".join(lines)


def filled(text: str, rows: Any, result: dict[str, Any]) -> str:
    """The page's text with what was measured between its marks."""
    for mark, body in (("world", table(rows)), ("processes", processes(result))):
        marked = f"<!-- {mark} -->\n\n{body}\n\n<!-- end of {mark} -->"
        pattern = f"<!-- {mark} -->.*?<!-- end of {mark} -->"
        text = re.sub(pattern, lambda _, marked=marked: marked, text, flags=re.S)
    return text


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    results = read_result("federated"), read_result("federated-processes")
    PAGE.write_text(filled(page, *results), encoding="utf-8")
