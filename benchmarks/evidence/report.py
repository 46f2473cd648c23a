"""docs/evidence.md from the committed rows."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.evidence.arms import (
    ABLATIONS,
    ARMS,
    BLOCKS,
    CONTRASTS,
    CONTROLLED,
    CONTROLLED_HARDER,
    DEFAULTS,
    UNTUNED,
)
from benchmarks.evidence.controls import CONTROLS
from benchmarks.evidence.feature_control import STYLES, has
from benchmarks.evidence.rows import (
    Row,
    kl_per_token,
    mean_intact,
    mean_preference,
    mean_score,
    of_arm,
    read_rows,
    scores,
)
from benchmarks.evidence.statistics import Estimate, best_less_best, detectable, estimate, holm
from benchmarks.evidence.temperatures import TEMPERATURES, at, win_rate
from benchmarks.record import ROOT, read_result

DOCUMENT = ROOT / "docs" / "evidence.md"
TEXT = ROOT / "benchmarks" / "evidence" / "evidence.md.tmpl"
GROUNDS = ("world", "smollm2", "example")
BACKENDS = ("torch", "mlx")
BUDGETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Most KL per token of the frontier; those from 0.05 on were named before anything was measured."""
GAINS = (0.2, 0.3)
"""How far above the start its P·I is to be."""
Table = list[list[str]]


def written() -> str:
    """The document: its text with every table in place."""
    text = TEXT.read_text(encoding="utf-8")
    for name in GROUNDS:
        result = read_rows(name)
        for title, make in TABLES.items():
            mark = f"{{{{{title} on {name}}}}}"
            if mark in text:
                table = make(result) if result else []
                text = text.replace(mark, markdown(table) if table[1:] else "Not measured.")
    alone = {"judges": judges(read_result("evidence-judges")), "memory": memory()}
    for title, table in alone.items():
        text = text.replace(f"{{{{{title}}}}}", markdown(table))
    return text


def markdown(table: Table) -> str:
    """A table, its first row the head."""
    head, *rows = table
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def score_table(rows: Sequence[Row]) -> np.ndarray:
    """P·I of an arm's samples, (seeds, prompts)."""
    return np.array([scores(row) for row in rows])


def tuning(result: dict[str, Any]) -> Table:
    """Every run of the tuning, arms one after the other; the one chosen is marked."""
    head = ["arm", "learning rate", "β", "weight", "P·I", "P", "intact", "raw accuracy"]
    head += ["KL per token", "perplexity"]
    (start,) = of_arm(result["tune"], "start")
    table = [head, _tuning_row(start, start, chosen=False)]
    for name in (*ARMS, *ABLATIONS, *DEFAULTS):
        rows = of_arm(result["tune"], name)
        best = max(map(mean_score, rows), default=0)
        chooses = name not in ABLATIONS
        table += [
            _tuning_row(row, start, chosen=chooses and mean_score(row) == best) for row in rows
        ]
    return table


def _tuning_row(row: Row, start: Row, *, chosen: bool) -> list[str]:
    change = row["change"]
    score = f"{mean_score(row):.3f}"
    rate, beta = change.get("learning_rate"), change.get("beta")
    arm = ARMS.get(row["arm"])
    weight = arm and (arm.settings | change).get("rpo_alpha")
    return [
        row["arm"],
        "–" if rate is None else f"{rate:g}",
        "–" if beta is None else f"{beta:g}",
        f"{weight:g}" if weight else "–",
        f"**{score}**" if chosen else score,
        f"{mean_preference(row):.3f}",
        f"{mean_intact(row):.3f}",
        f"{row['raw_accuracy']:.3f}",
        f"{kl_per_token(row):.3g}",
        _change(row, start),
    ]


def _change(row: Row, start: Row) -> str:
    return f"{row['perplexity'] / start['perplexity'] - 1:+.1%}" if row is not start else "–"


def arms(result: dict[str, Any], names: Sequence[str] = ("start", *ARMS)) -> Table:
    """Table A: every arm as it was tuned, on prompts that nothing was chosen on."""
    head = ["arm", "rate, β", "seeds", "P·I", "P", "intact", "raw accuracy", "margin"]
    head += ["KL per token", "KL rejected", "D rejected", "perplexity", "distinct-2", "tokens"]
    test = result.get("test", [])
    start = of_arm(test, "start")[0]
    named = ((name, of_arm(test, name)) for name in names)
    return [head, *(_arm_row(name, rows, start) for name, rows in named if rows)]


def ablations(result: dict[str, Any]) -> Table:
    """FPO as it was tuned, and with one thing changed."""
    return arms(result, ("fpo", *ABLATIONS, *BLOCKS))


def _arm_row(name: str, rows: list[Row], start: Row) -> list[str]:
    def mean(measure: Callable[[Row], float], form: str) -> str:
        values = [measure(row) for row in rows]
        spread = f" ± {np.std(values, ddof=1):{form}}" if len(values) > 1 else ""
        return f"{np.mean(values):{form}}{spread}"

    change = rows[0]["change"]
    settings = f"{change['learning_rate']:g}, {change['beta']:g}" if change else "–"
    rise = float(np.mean([row["perplexity"] for row in rows])) / start["perplexity"] - 1
    return [
        name,
        settings,
        str(len(rows)),
        estimate(score_table(rows)).text(),
        mean(mean_preference, ".3f"),
        mean(mean_intact, ".3f"),
        mean(lambda row: row["raw_accuracy"], ".3f"),
        mean(lambda row: row["margin"], ".3g"),
        mean(kl_per_token, ".3g"),
        mean(lambda row: row.get("kl_rejected", 0.0), ".3g"),
        mean(lambda row: row["d_rejected"], ".2g"),
        f"{rise:+.1%}",
        mean(lambda row: row["distinct_2"], ".3f"),
        mean(lambda row: row["length"], ".0f"),
    ]


def defaults(result: dict[str, Any]) -> Table:
    """What a run does where nothing is set."""
    return arms(result, ("start", *UNTUNED))


def gains(result: dict[str, Any]) -> Table:
    """The defaults less the start."""
    test = result.get("test", [])
    pairs = [(name, "start") for name in UNTUNED if of_arm(test, name)]
    return _pairs(test, pairs)


def contrasts(result: dict[str, Any]) -> Table:
    """fpo less each rival named beforehand, paired by prompt and seed, under Holm."""
    test = result.get("test", [])
    there = [rival for rival in CONTRASTS if of_arm(test, rival) and of_arm(test, "fpo")]
    means = [_contrast(test, "fpo", rival) for rival in there]
    adjusted = holm([mean.p for mean, _ in means])
    rows = [
        [*cells[:-1], f"{p:.3g}", cells[-1]] for (_, cells), p in zip(means, adjusted, strict=True)
    ]
    return [["P·I", "seeds", "difference [95%]", "p", "p, Holm", "detectable"], *rows]


def others(result: dict[str, Any]) -> Table:
    """Contrasts that were not named beforehand: the supervised term, and the start."""
    pairs = [("fpo + sft", other) for other in ARMS if "sft" in other and other != "fpo + sft"]
    pairs += [("fpo + sft", "fpo"), ("fpo + sft", "start"), ("sft", "fpo")]
    test = result.get("test", [])
    return _pairs(test, [(a, b) for a, b in pairs if of_arm(test, a) and of_arm(test, b)])


def wins(result: dict[str, Any]) -> Table:
    """How often an arm's sample scores more than the start's or fpo's, ties half."""
    test = result.get("test", [])
    table = [["arm", "over start", "over fpo", "NLL under the start"]]
    for name in ARMS:
        rows = of_arm(test, name)
        if not rows:
            continue
        cells = [name]
        for rival in ("start", "fpo"):
            gaps = differences(test, name, rival) if rival != name else np.empty(0)
            cells.append(estimate((np.sign(gaps) + 1) / 2).text() if gaps.size else "–")
        nll = [sample["nll"] for row in rows for sample in row["samples"] if "nll" in sample]
        table.append([*cells, f"{np.mean(nll):.2f}" if nll else "–"])
    return table


def encoders(result: dict[str, Any]) -> Table:
    """Table D: the constraint on features less that on a control, at an equal share."""
    test = result.get("test", [])
    ours = "fpo: share 0.5"
    controls = [f"{ours} {name}" for name in CONTROLS]
    return _pairs(test, [(ours, name) for name in controls if of_arm(test, name)])


def _pairs(test: Sequence[Row], pairs: Sequence[tuple[str, str]]) -> Table:
    rows = [_contrast(test, a, b)[1] for a, b in pairs]
    return [["P·I", "seeds", "difference [95%]", "p", "detectable"], *rows]


def differences(test: Sequence[Row], name: str, rival: str) -> np.ndarray:
    """P·I of one arm less the other's at the same prompts and seeds, (seeds, prompts)."""
    ours, theirs = of_arm(test, name), of_arm(test, rival)
    if rival == "start" and len(theirs) == 1:
        theirs = [theirs[0] | {"seed": row["seed"]} for row in ours]
    seeds = {row["seed"] for row in ours} & {row["seed"] for row in theirs}
    ours, theirs = ([r for r in rows if r["seed"] in seeds] for rows in (ours, theirs))
    return score_table(ours) - score_table(theirs)


def _contrast(test: Sequence[Row], name: str, rival: str) -> tuple[Estimate, list[str]]:
    """The mean difference, and its cells."""
    values = differences(test, name, rival)
    mean = estimate(values)
    cells = [f"{name} − {rival}", str(len(values)), mean.text(), f"{mean.p:.3g}"]
    return mean, [*cells, f"{detectable(values):.3f}"]


def _by_settings(rows: Sequence[Row], name: str) -> list[list[Row]]:
    """An arm's runs of the frontier, those of the same settings together."""
    settings: dict[str, list[Row]] = {}
    for row in of_arm(rows, name):
        settings.setdefault(str(row["change"]), []).append(row)
    return [*settings.values()]


def _mean_kl(runs: Sequence[Row]) -> float:
    return float(np.mean([*map(kl_per_token, runs)]))


def _starts(result: dict[str, Any]) -> list[Row]:
    """The start as often as the frontier's runs: sampled with their seeds, where it was."""
    rows = result.get("frontier", [])
    seeds = {row["seed"] for row in rows if row["arm"] != "start"}
    again = [row for row in of_arm(result.get("test", []), "start") if row["seed"] in seeds]
    return again if len(again) == len(seeds) else of_arm(rows, "start")


def frontier(result: dict[str, Any]) -> Table:
    """Table B: the best mean P·I within a KL, and the least KL that reaches a P·I."""
    rows = result.get("frontier", [])
    starts = _starts(result)
    head = ["arm", "settings", "seeds", *(f"P·I at KL ≤ {kl:g}" for kl in BUDGETS)]
    head += [f"KL at P·I ≥ start + {gain:g}" for gain in GAINS]
    table = [head]
    for name in ARMS if starts else ():
        if not (settings := _by_settings(rows, name)):
            continue
        points = [(_mean_kl(runs), np.mean([*map(mean_score, runs)])) for runs in settings]
        within = [max((p for kl, p in points if kl <= most), default=None) for most in BUDGETS]
        goals = [np.mean([*map(mean_score, starts)]) + gain for gain in GAINS]
        least = [min((kl for kl, p in points if p >= goal), default=None) for goal in goals]
        cells = [name, str(len(settings)), str(min(map(len, settings)))]
        cells += ["–" if p is None else f"{p:.3f}" for p in within]
        table.append(cells + ["–" if kl is None else f"{kl:.3f}" for kl in least])
    return table


def frontier_gaps(result: dict[str, Any]) -> Table:
    """How far fpo's best P·I within a KL is ahead of each rival's."""
    rows = result.get("frontier", [])

    def within(name: str, most: float) -> np.ndarray:
        runs = (runs for runs in _by_settings(rows, name) if _mean_kl(runs) <= most)
        return np.array([score_table(of_one) for of_one in runs])

    table = [["P·I, best of each", *(f"KL ≤ {kl:g}" for kl in BUDGETS)]]
    for rival in CONTRASTS if of_arm(rows, "fpo") else ():
        if not of_arm(rows, rival):
            continue
        pairs = [(within("fpo", kl), within(rival, kl)) for kl in BUDGETS]
        cells = [best_less_best(*p).text() if all(map(len, p)) else "–" for p in pairs]
        table.append([f"fpo − {rival}", *cells])
    return table


def control(result: dict[str, Any], names: Sequence[str] = (*CONTROLLED,)) -> Table:
    """Table E: the share of samples in each style, with D on the features of one of them."""
    test = result.get("test", [])
    arms = {name: of_arm(test, name) for name in ("start", "fpo", *names)}
    seeds = set.intersection(*({r["seed"] for r in arms[name]} for name in ("fpo", *names)))
    arms = {n: [r for r in rows if n == "start" or r["seed"] in seeds] for n, rows in arms.items()}
    less = [(name, "fpo") for name in names] + [(names[0], names[1])]
    table = [["style", *arms, *(f"{name} − {other}" for name, other in less)]]
    if not seeds:
        return table
    for style in STYLES:
        shown = {name: has(rows, style) for name, rows in arms.items()}
        changes = [estimate(shown[name] - shown[other]).text() for name, other in less]
        table.append([style, *(f"{share.mean():.3f}" for share in shown.values()), *changes])
    return table


def control_harder(result: dict[str, Any]) -> Table:
    """The same where the constraint is held at more of the preference's gradient."""
    return control(result, (*CONTROLLED_HARDER,))


def prices(result: dict[str, Any]) -> Table:
    """What control of features costs."""
    return arms(result, ("fpo", *CONTROLLED, *CONTROLLED_HARDER))


def win_rates(result: dict[str, Any]) -> Table:
    """Table F: how often fpo's sample scores more, by temperature; and its mean P·I."""
    rows = result.get("sample", [])
    rivals = [name for name in CONTRASTS if of_arm(rows, name)]
    table = [["temperature", "fpo, P·I", *(f"fpo over {name}" for name in rivals)]]
    for temperature in TEMPERATURES:
        if not (ours := at(rows, "fpo", temperature)):
            continue
        cells = [f"{temperature:g}", estimate(score_table(ours)).text()]
        for rival in rivals:
            cells.append(win_rate(ours, at(rows, rival, temperature)).text())
        table.append(cells)
    return table


def memory() -> Table:
    """Table G: peak memory of a step by objective, and of TRL's DPO against FPO's, in GB."""
    table = [["step", "torch, arrays", "torch, process", "MLX, arrays"]]
    torch, mlx = (read_result(f"step-{n}-smollm2-135m-M-objectives")["rows"] for n in BACKENDS)
    for name, row in torch.items():
        cells = [row["arrays_gb"], row["peak_gb"], mlx[name]["peak_gb"]]
        table.append([name, *(f"{gb:.2f}" for gb in cells)])
    for name, row in read_result("peers-torch-smollm2-135m-M")["rows"].items():
        process = f"{row['peer_gb']:.2f} (fpo {row['fpo_gb']:.2f})"
        table.append([f"dpo of {name}", "–", process, "–"])
    return table


def judges(found: dict[str, Any]) -> Table:
    """How well the judges of SmolLM2's samples judge what is known."""
    if not found:
        return [["judge", "figure"]]
    classifier = found["classifier"]
    table = [["judge", "figure"]]
    table.append(
        ["classifier, AUC of happy against the rest", f"{classifier['auc_happy_rest']:.3f}"]
    )
    against = f"{classifier['auc_happy_depressed']:.3f}"
    table.append(["classifier, AUC of happy against depressed", against])
    table.append(["checks, share of good answers that pass", f"{found['good_accepted']:.2f}"])
    for name, values in found["corrupted"].items():
        table.append([f"checks, AUC against {name}", f"{values['auc']:.3f}"])
        table.append([f"checks, share that pass: {name}", f"{values['accepted']:.2f}"])
    return table


TABLES: dict[str, Callable[[dict[str, Any]], Table]] = {
    "tuning": tuning,
    "arms": arms,
    "contrasts": contrasts,
    "other contrasts": others,
    "wins": wins,
    "ablations": ablations,
    "encoders": encoders,
    "defaults": defaults,
    "gains": gains,
    "frontier": frontier,
    "frontier gaps": frontier_gaps,
    "win rates": win_rates,
    "control": control,
    "harder control": control_harder,
    "prices": prices,
}
