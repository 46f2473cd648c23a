"""What docs/federated.md says of measurements, from results/federated.json and -processes.json.

Run: python -m benchmarks.federated_tables, which writes it between its marks.
"""

from typing import Any

from benchmarks import pages
from benchmarks.record import ROOT, read_result

PAGE = ROOT / "docs" / "federated.md"
_FORMS = {"json": "JSON", "french": "French", "plain": "plain"}


def _spread(values: list[float]) -> str:
    return f"{sum(values) / len(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


def _accuracies(run: dict[str, Any]) -> dict[str, float]:
    return {
        "mixture": run["mixture"],
        "worst client": run["worst_client"],
        "validation": run["forms"]["all"],
    }


def _oracle(run: dict[str, Any]) -> dict[str, float]:
    clients = run["clients"].values()
    pairs = sum(client["pairs"] for client in clients)
    mixture = sum(client["pairs"] * client["oracle"] for client in clients) / pairs
    return {
        "all": run["oracle"]["all"],
        **{label: run["oracle"][name] for name, label in _FORMS.items()},
        "mixture": mixture,
        "worst client": min(client["oracle"] for client in clients),
    }


def _table(rows: list[dict[str, Any]], lead: dict[str, Any], columns: Any) -> list[str]:
    """A row an arm, in the order of the file; `lead` are columns of text, of all its runs."""
    lines: list[str] = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        runs = [row for row in rows if row["arm"] == arm]
        values = [columns(run) for run in runs]
        head = ["", *lead, *values[0]]
        cells = [arm, *(text(runs) for text in lead.values())]
        cells += [_spread([value[name] for value in values]) for name in values[0]]
        lines = lines or ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _said(rows: list[dict[str, Any]]) -> str:
    """What the oracle on all prompts says of the arms, and which arms chose the same blocks."""
    of = {(row["arm"], row["seed"]): row for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    gains = [
        of["fedavgm", seed]["oracle"]["all"] - of["fedavg", seed]["oracle"]["all"] for seed in seeds
    ]
    means = [
        sum(of[arm, seed]["oracle"]["all"] for seed in seeds) / len(seeds)
        for arm in dict.fromkeys(row["arm"] for row in rows)
        if arm != "fedavgm"
    ]
    halves = [f"fedpeptao, half {how}" for how in ("by score", "at random")]
    same = [s for s in seeds if of[halves[0], s]["blocks"] == of[halves[1], s]["blocks"]]
    return (
        "By the oracle on all prompts FedAvgM is ahead of FedAvg in "
        f"{sum(gain > 0 for gain in gains)} of {len(seeds)} seeds, the gain being {min(gains):.3f} "
        f"to {max(gains):.3f}; the means of the other arms "
        f"lie within {max(means) - min(means):.3f}. Blocks at random are those by score in "
        f"{len(same)} of {len(seeds)} seeds, which thus says nothing of the two."
    )


def tables(rows: list[dict[str, Any]]) -> str:
    """Accuracies with what was sent for them, and the oracle on samples."""
    lead = {
        "seeds": lambda runs: str(len(runs)),
        "sent": lambda runs: f"{max(run['bytes'] for run in runs) / 2**20:.2f} MiB",
    }
    first = _table(rows, lead, _accuracies)
    return "\n".join([*first, "", *_table(rows, {}, _oracle), "", _said(rows)])


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
    for mark, body in (("world", tables(rows)), ("processes", processes(result))):
        text = pages.filled(text, f"<!-- {mark} -->", f"<!-- end of {mark} -->", body)
    return text


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    results = read_result("federated"), read_result("federated-processes")
    PAGE.write_text(filled(page, *results), encoding="utf-8")
