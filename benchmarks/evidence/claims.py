"""What is measured beside each claim of the paper: lines of Markdown from finished runs."""

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, stdev
from typing import Any

from benchmarks.evidence.found import (
    Evidence,
    Matched,
    Run,
    across_examples,
    across_runs,
    matched,
)
from benchmarks.evidence.measures import NAMES
from fpo.comparison import tables

MEASURES = {
    "sae": "the autoencoder",
    "random": "random weights in its place",
    "hidden": "mean squared error of the hidden state",
}
FEWEST = 5
"""Runs that a rank correlation over runs needs at least."""
POINTS = 20, 5
"""What feature control should move the attribute by, at least, and the others, at most."""


def accuracy_and_diversity(found: Evidence) -> Iterator[str]:
    """Table 2: accuracy, and entropy of samples."""
    start: dict[str, Any] = {"variant": "start"} | found.start
    columns = ("raw_accuracy", "reward_accuracy", "oracle", "entropy", "distinct_2", "perplexity")
    yield from _table([start, *_results(found.objectives)], columns)
    yield ""
    yield _against(found, "raw_accuracy", "raw accuracy")
    yield _against(found, "entropy", "entropy of samples")
    if "oracle" in found.of("fpo")[0].result["metrics"]:
        yield _against(found, "oracle", "the oracle's score")
        yield from _broken(found)


def _broken(found: Evidence) -> Iterator[str]:
    """Where entropy above FPO's is that of worse samples: it is no measure of diversity there."""
    fpo = {
        key: _mean(found.of("fpo"), lambda run, key=key: run.result["metrics"][key])
        for key in ("entropy", "oracle")
    }
    worse = [
        objective
        for objective in dict.fromkeys(run.result["objective"] for run in found.objectives)
        if _mean(found.of(objective), lambda run: run.result["metrics"]["entropy"]) > fpo["entropy"]
        and _mean(found.of(objective), lambda run: run.result["metrics"]["oracle"]) < fpo["oracle"]
    ]
    if worse:
        mine, first = fpo["entropy"], found.start["metrics"]["entropy"]
        yield (
            f"- The paper's higher entropy for FPO does not hold here: {', '.join(worse)} end "
            "above it. Their samples are also judged worse, and FPO's entropy "
            f"({mine:.3f}) is the nearer to the start's ({first:.3f}): what they gain is disorder, "
            "not diversity."
        )


def sequential_kl(found: Evidence) -> Iterator[str]:
    """Fig. 3, and the comparison at matched accuracy."""
    columns = ("kl_chosen", "kl_rejected", "kl_margin", "d_chosen", "d_rejected", "d_margin")
    yield from _table(_results(found.objectives), columns)
    yield ""
    yield _against(found, "fpo/kl_rejected", "sequential KL of rejected completions")
    for other in ("dpo-norm", "dpo"):
        if found.of(other):
            yield from _matched(other, matched(found, other))


def _matched(other: str, pairs: Sequence[Matched]) -> Iterator[str]:
    yield ""
    if not pairs:
        yield f"FPO and {other} have no checkpoints at one raw accuracy (± 1 point)."
        return
    yield f"At matched raw accuracy (± 1 point, first checkpoints there), FPO / {other}:"
    yield ""
    yield "| seed | raw accuracy | step | KL rejected | D rejected |"
    yield "|---:|---:|---:|---:|---:|"
    for each in pairs:
        cells = (each.accuracy, each.steps, each.kl, each.d)
        shown = (f"{own:.3g} / {their:.3g}" for own, their in cells)
        yield f"| {each.seed} | " + " | ".join(shown) + " |"
    lower = {
        name: sum(own < their for own, their in values)
        for name, values in (("KL", [p.kl for p in pairs]), ("D", [p.d for p in pairs]))
    }
    yield ""
    yield (
        f"Lower with FPO: KL in {lower['KL']} and D in {lower['D']} of {len(pairs)} seeds. "
        + (
            "This holds."
            if set(lower.values()) == {len(pairs)}
            else "This does not hold throughout."
        )
    )


def memory_and_time(found: Evidence) -> Iterator[str]:
    """Fig. 4, left: peak memory and time of a step."""
    yield from _table(_results(found.objectives), ("seconds_per_step", "peak_memory"))
    yield ""
    for other, paper in (("simpo", "within 1%"), ("tdpo2", "0.85")):
        if found.of(other):
            ratios = [
                _mean(found.of("fpo"), lambda r, key=key: r.result[key])
                / _mean(found.of(other), lambda r, key=key: r.result[key])
                for key in ("peak_memory", "seconds_per_step")
            ]
            yield (
                f"- FPO / {other}: memory {ratios[0]:.2f} (paper: {paper}), time of a step "
                f"{ratios[1]:.2f}."
            )
    yield (
        "- On a CPU, peak memory is the whole process's, libraries and what earlier runs left "
        "included: the order of the runs shows in it as much as their objectives. Times are of "
        "runs one after another, beside other work; benchmarks/bench_step.py takes steps in turn."
    )


def consistency(found: Evidence) -> Iterator[str]:
    """Fig. 4, right: D against sequential KL, with controls."""
    yield "Spearman's ρ of D and KL over held-out completions at the last checkpoint, seed 0:"
    yield ""
    first = [run for run in found.objectives if run.result["seed"] == 0]
    by_run = {run.result["variant"]: across_examples(run) for run in first or found.objectives}
    target, by_measure = across_runs([*found.objectives, *found.ablations])
    yield "| D by | " + " | ".join(by_run) + " |"
    yield "|---|" + "---:|" * len(by_run)
    for name in NAMES:
        cells = (
            f"{c[name].rho:.2f} [{c[name].low:.2f}, {c[name].high:.2f}]" for c in by_run.values()
        )
        yield f"| {MEASURES[name]} | " + " | ".join(cells) + " |"
    yield ""
    yield (
        f"Over objectives, settings and seeds at raw accuracy {target:.3f} ± 0.01, rejected side:"
    )
    yield ""
    if by_measure["sae"].count < FEWEST:
        yield f"Not measured: {by_measure['sae'].count} runs are too few for a rank correlation."
        return
    yield from (f"- {MEASURES[name]}: {by_measure[name]}" for name in NAMES)
    yield ""
    yield _special(by_measure)


def _special(by_measure: dict[str, Any]) -> str:
    own = by_measure["sae"]
    better = [name for name in NAMES[1:] if by_measure[name].rho >= own.rho]
    if not better:
        return "Neither control orders runs by KL as well as the autoencoder does."
    said = " and ".join(MEASURES[name] for name in better)
    return f"The features are not what makes it: {said} orders runs by KL at least as well."


def ablations(found: Evidence) -> Iterator[str]:
    """Table 3, less the sites and layers."""
    runs = [*found.of("dpo-norm"), *found.of("fpo"), *found.ablations]
    columns = ("raw_accuracy", "oracle", "entropy", "kl_rejected", "d_rejected", "perplexity")
    yield from _table(_results(runs), columns)
    yield ""
    if found.alpha is not None:
        yield f"`fpo` is the default, α = {found.alpha:g}; `dpo-norm` is α = 0."
    if not found.ablations:
        yield "Ablations: not measured on this model."
    yield "Layers: under table 7. Other sites than the residual stream: not measured."


def control(found: Evidence) -> Iterator[str]:
    """Table 4: the oracle's score of each attribute, with and without weights."""
    if not found.control:
        yield "Not measured: no oracle judges this model's samples."
        return
    strong = [run for run in found.ablations if _is_strong(run, found.control[0])]
    groups: dict[str, list[Run]] = {"no weights": strong}
    for run in found.control:
        groups.setdefault(run.result["varied"]["weights"], []).append(run)
    attributes = [name for name in groups if name != "no weights"]
    scores = {
        name: {a: _mean(runs, _oracle(a)) for a in attributes} for name, runs in groups.items()
    }
    start = found.start["metrics"]["oracle_scores"]
    yield "| weights on | " + " | ".join(attributes) + " |"
    yield "|---|" + "---:|" * len(attributes)
    yield "| start | " + " | ".join(f"{start[a]:.3f}" for a in attributes) + " |"
    for name, row in scores.items():
        yield f"| {name} | " + " | ".join(f"{row[a]:.3f}" for a in attributes) + " |"
    yield ""
    alpha = found.control[0].result["config"]["alpha"]
    yield f"All with α = {alpha:g}; weight 1 on the 20 features that tell the two values apart."
    for name in attributes:
        yield _moved(name, scores[name], scores["no weights"])


def _moved(name: str, with_weights: dict[str, float], without: dict[str, float]) -> str:
    change = {a: 100 * (value - without[a]) for a, value in with_weights.items()}
    others = max(abs(value) for a, value in change.items() if a != name)
    holds = abs(change[name]) >= POINTS[0] and others <= POINTS[1]
    said = "moves it alone" if holds else "is no control of it alone"
    return f"- {name}: {change[name]:+.0f} points, the others by at most {others:.0f}: {said}."


def _is_strong(run: Run, controlled: Run) -> bool:
    return run.result["varied"] == {"alpha": controlled.result["config"]["alpha"]}


def _oracle(attribute: str) -> Callable[[Run], float]:
    return lambda run: run.result["metrics"]["oracle_scores"][attribute]


def several(found: Evidence) -> Iterator[str]:
    """Table 7, and table 3's layers."""
    if not found.blocks:
        yield "Not measured: one autoencoder comes with the model."
        return
    columns = ("raw_accuracy", "oracle", "entropy", "kl_rejected", "perplexity")
    yield from _table(_results(found.blocks), columns)
    yield ""
    yield (
        "Blocks are counted from 0, of 4; each autoencoder reads the output of its block, several "
        "give the mean of their D. All with normalised D and α = 1."
    )
    scores = {
        name: [run.result["metrics"]["oracle"] for run in runs]
        for name, runs in _by(found.blocks, "block").items()
    }
    together = scores.pop("1+2+3")
    alone = max(scores, key=lambda name: fmean(scores[name]))
    gain = fmean(together) - fmean(scores[alone])
    spread = max(stdev(values) if len(values) > 1 else 0.0 for values in (together, scores[alone]))
    found_so = "better" if gain > spread else "worse" if gain < -spread else "no different"
    yield (
        f"- All three together: oracle {fmean(together):.3f}, the best alone (block {alone}) "
        f"{fmean(scores[alone]):.3f}: several are {found_so} beyond the spread over seeds."
    )


def _by(runs: Sequence[Run], key: str) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(str(run.result["varied"][key]), []).append(run)
    return groups


def cost(found: Evidence) -> Iterator[str]:
    """What comparing costs beyond the steps themselves."""
    seed = min(run.result["seed"] for run in found.objectives)
    runs = [run.result for run in found.objectives if run.result["seed"] == seed]
    total, steps = (sum(run[key] for run in runs) for key in ("seconds", "step_seconds"))
    reference = found.start["reference_seconds"]
    yield (
        f"All objectives, one seed: {total + reference:.0f} s, of them {steps:.0f} s in steps and "
        f"{reference:.1f} s in the reference pass: {(total + reference) / (steps + reference):.2f} "
        "times these two. The rest is loading, validation, checkpoints, and measuring each result; "
        "benchmarks/bench_compare.py takes the whole command on the world by itself."
    )


def _results(runs: Sequence[Run]) -> list[dict[str, Any]]:
    return [run.result for run in runs]


def _table(results: Sequence[dict[str, Any]], columns: Sequence[str]) -> list[str]:
    kept = {"variant", "seeds", *columns, *(f"{column}_spread" for column in columns)}
    rows = [{k: v for k, v in row.items() if k in kept} for row in tables.rows(results)]
    return tables.markdown(rows).splitlines()


def _mean(runs: Sequence[Run], read: Callable[[Run], float]) -> float:
    return fmean(read(run) for run in runs)


def _against(found: Evidence, metric: str, words: str) -> str:
    """FPO against every other objective in a metric, seed by seed."""

    def value(run: Run) -> float:
        read = run.result["metrics"][metric]
        return read["value"] if isinstance(read, dict) else read

    own = {run.result["seed"]: value(run) for run in found.of("fpo")}
    names = dict.fromkeys(run.result["objective"] for run in found.objectives)
    parts = []
    for name in names:
        if name != "fpo":
            gaps = [own[run.result["seed"]] - value(run) for run in found.of(name)]
            higher = sum(gap > 0 for gap in gaps)
            parts.append(f"{name} {fmean(gaps):+.3g} (higher in {higher} of {len(gaps)})")
    return f"- FPO less each other in {words}: {', '.join(parts)}."
