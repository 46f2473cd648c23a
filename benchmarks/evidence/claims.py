"""Measurements for each claim of the paper, from finished runs, as lines of Markdown."""

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, stdev
from typing import Any

from benchmarks.evidence.measures import NAMES
from benchmarks.evidence.results import (
    Evidence,
    Matched,
    Run,
    across_examples,
    across_runs,
    matched,
)
from fpo.comparison import tables

MEASURES = {
    "sae": "the autoencoder",
    "random": "random weights in its place",
    "hidden": "mean squared error of the hidden state",
}
FEWEST = 5
"""Fewest runs for a rank correlation over runs."""
POINTS = 20, 5
"""Feature control should move its attribute by at least this, and others by at most that."""


def accuracy_and_diversity(evidence: Evidence) -> Iterator[str]:
    """Table 2: accuracy, and entropy of samples."""
    start: dict[str, Any] = {"variant": "start"} | evidence.start
    columns = ("raw_accuracy", "reward_accuracy", "oracle", "entropy", "distinct_2", "perplexity")
    yield from _table([start, *_results(evidence.objectives)], columns)
    yield ""
    yield _against(evidence, "raw_accuracy", "raw accuracy")
    yield _against(evidence, "entropy", "entropy of samples")
    if "oracle" in evidence.of("fpo")[0].result["metrics"]:
        yield _against(evidence, "oracle", "the oracle's score")
        yield from _broken(evidence)


def _broken(evidence: Evidence) -> Iterator[str]:
    """Objectives of higher entropy than FPO but worse samples: disorder, not diversity."""
    fpo = {
        key: _mean(evidence.of("fpo"), lambda run, key=key: run.result["metrics"][key])
        for key in ("entropy", "oracle")
    }
    worse = [
        objective
        for objective in dict.fromkeys(run.result["objective"] for run in evidence.objectives)
        if _mean(evidence.of(objective), lambda run: run.result["metrics"]["entropy"])
        > fpo["entropy"]
        and _mean(evidence.of(objective), lambda run: run.result["metrics"]["oracle"])
        < fpo["oracle"]
    ]
    if worse:
        ours, first = fpo["entropy"], evidence.start["metrics"]["entropy"]
        yield (
            f"- The paper's higher entropy for FPO does not hold here: {', '.join(worse)} end "
            "above it. Their samples are also judged worse, and FPO's entropy "
            f"({ours:.3f}) is the nearer to the start's ({first:.3f}): what they gain is disorder, "
            "not diversity."
        )


def sequential_kl(evidence: Evidence) -> Iterator[str]:
    """Fig. 3, and the comparison at matched accuracy."""
    columns = ("kl_chosen", "kl_rejected", "kl_margin", "d_chosen", "d_rejected", "d_margin")
    yield from _table(_results(evidence.objectives), columns)
    yield ""
    yield _against(evidence, "fpo/kl_rejected", "sequential KL of rejected completions")
    for other in ("dpo-norm", "dpo"):
        if evidence.of(other):
            yield from _matched(other, matched(evidence, other))


def _matched(other: str, pairs: Sequence[Matched]) -> Iterator[str]:
    yield ""
    if not pairs:
        yield f"FPO and {other} have no checkpoints at one raw accuracy (± 1 point)."
        return
    yield f"At matched raw accuracy (± 1 point, first checkpoints there), FPO / {other}:"
    yield ""
    yield "| seed | raw accuracy | step | KL rejected | D rejected |"
    yield "|---:|---:|---:|---:|---:|"
    for pair in pairs:
        cells = (pair.accuracy, pair.steps, pair.kl, pair.d)
        shown = (f"{ours:.3g} / {theirs:.3g}" for ours, theirs in cells)
        yield f"| {pair.seed} | " + " | ".join(shown) + " |"
    lower = {
        name: sum(ours < theirs for ours, theirs in values)
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


def memory_and_time(evidence: Evidence) -> Iterator[str]:
    """Fig. 4, left: peak memory and time of a step."""
    yield from _table(_results(evidence.objectives), ("seconds_per_step", "peak_memory"))
    yield ""
    for other, paper in (("simpo", "within 1%"), ("tdpo2", "0.85")):
        if evidence.of(other):
            ratios = [
                _mean(evidence.of("fpo"), lambda r, key=key: r.result[key])
                / _mean(evidence.of(other), lambda r, key=key: r.result[key])
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


def consistency(evidence: Evidence) -> Iterator[str]:
    """Fig. 4, right: D against sequential KL, with controls."""
    yield "Spearman's ρ of D and KL over held-out completions at the last checkpoint, seed 0:"
    yield ""
    first = [run for run in evidence.objectives if run.result["seed"] == 0]
    by_run = {run.result["variant"]: across_examples(run) for run in first or evidence.objectives}
    target, by_measure = across_runs([*evidence.objectives, *evidence.ablations])
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
    rho = by_measure["sae"].rho
    better = [name for name in NAMES[1:] if by_measure[name].rho >= rho]
    if not better:
        return "Neither control orders runs by KL as well as the autoencoder does."
    said = " and ".join(MEASURES[name] for name in better)
    return f"The features are not what makes it: {said} orders runs by KL at least as well."


def ablations(evidence: Evidence) -> Iterator[str]:
    """Table 3, less the sites and layers."""
    runs = [*evidence.of("dpo-norm"), *evidence.of("fpo"), *evidence.ablations]
    columns = ("raw_accuracy", "oracle", "entropy", "kl_rejected", "d_rejected", "perplexity")
    yield from _table(_results(runs), columns)
    yield ""
    if evidence.alpha is not None:
        yield f"`fpo` is the default, α = {evidence.alpha:g}; `dpo-norm` is α = 0."
    if not evidence.ablations:
        yield "Ablations: not measured on this model."
    yield "Layers: under table 7. Other sites than the residual stream: not measured."


def control(evidence: Evidence) -> Iterator[str]:
    """Table 4: the oracle's score of each attribute, with and without weights."""
    if not evidence.control:
        yield "Not measured: no oracle judges this model's samples."
        return
    strong = [run for run in evidence.ablations if _is_strong(run, evidence.control[0])]
    groups: dict[str, list[Run]] = {"no weights": strong}
    for run in evidence.control:
        groups.setdefault(run.result["varied"]["weights"], []).append(run)
    attributes = [name for name in groups if name != "no weights"]
    scores = {
        name: {a: _mean(runs, _oracle(a)) for a in attributes} for name, runs in groups.items()
    }
    start = evidence.start["metrics"]["oracle_scores"]
    yield "| weights on | " + " | ".join(attributes) + " |"
    yield "|---|" + "---:|" * len(attributes)
    yield "| start | " + " | ".join(f"{start[a]:.3f}" for a in attributes) + " |"
    for name, row in scores.items():
        yield f"| {name} | " + " | ".join(f"{row[a]:.3f}" for a in attributes) + " |"
    yield ""
    alpha = evidence.control[0].result["config"]["alpha"]
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


def several(evidence: Evidence) -> Iterator[str]:
    """Table 7, and table 3's layers."""
    if not evidence.blocks:
        yield "Not measured: one autoencoder comes with the model."
        return
    columns = ("raw_accuracy", "oracle", "entropy", "kl_rejected", "perplexity")
    yield from _table(_results(evidence.blocks), columns)
    yield ""
    yield (
        "Blocks are counted from 0, of 4; each autoencoder reads the output of its block, several "
        "give the mean of their D. All with normalised D and α = 1."
    )
    scores = {
        name: [run.result["metrics"]["oracle"] for run in runs]
        for name, runs in _by(evidence.blocks, "block").items()
    }
    together = scores.pop("1+2+3")
    alone = max(scores, key=lambda name: fmean(scores[name]))
    gain = fmean(together) - fmean(scores[alone])
    spread = max(stdev(values) if len(values) > 1 else 0.0 for values in (together, scores[alone]))
    outcome = "better" if gain > spread else "worse" if gain < -spread else "no different"
    yield (
        f"- All three together: oracle {fmean(together):.3f}, the best alone (block {alone}) "
        f"{fmean(scores[alone]):.3f}: several are {outcome} beyond the spread over seeds."
    )


def _by(runs: Sequence[Run], key: str) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(str(run.result["varied"][key]), []).append(run)
    return groups


def cost(evidence: Evidence) -> Iterator[str]:
    """What comparing costs beyond the steps themselves."""
    seed = min(run.result["seed"] for run in evidence.objectives)
    runs = [run.result for run in evidence.objectives if run.result["seed"] == seed]
    total, steps = (sum(run[key] for run in runs) for key in ("seconds", "step_seconds"))
    reference = evidence.start["reference_seconds"]
    yield (
        f"All objectives, one seed: {total + reference:.0f} s, of them {steps:.0f} s in steps and "
        f"{reference:.1f} s in the reference pass: {(total + reference) / (steps + reference):.2f} "
        "times these two. The rest is loading, validation, checkpoints, and measuring each result; "
        "benchmarks/bench_compare.py takes the whole command on the world by itself."
    )


def _results(runs: Sequence[Run]) -> list[dict[str, Any]]:
    return [run.result for run in runs]


def _table(results: Sequence[dict[str, Any]], columns: Sequence[str]) -> list[str]:
    shown = {"variant", "seeds", *columns, *(f"{column}_spread" for column in columns)}
    rows = [{k: v for k, v in row.items() if k in shown} for row in tables.rows(results)]
    return tables.markdown(rows).splitlines()


def _mean(runs: Sequence[Run], read: Callable[[Run], float]) -> float:
    return fmean(read(run) for run in runs)


def _against(evidence: Evidence, metric: str, words: str) -> str:
    """FPO against every other objective in a metric, seed by seed."""

    def value(run: Run) -> float:
        read = run.result["metrics"][metric]
        return read["value"] if isinstance(read, dict) else read

    fpo = {run.result["seed"]: value(run) for run in evidence.of("fpo")}
    names = dict.fromkeys(run.result["objective"] for run in evidence.objectives)
    parts = []
    for name in names:
        if name != "fpo":
            gaps = [fpo[run.result["seed"]] - value(run) for run in evidence.of(name)]
            higher = sum(gap > 0 for gap in gaps)
            parts.append(f"{name} {fmean(gaps):+.3g} (higher in {higher} of {len(gaps)})")
    return f"- FPO less each other in {words}: {', '.join(parts)}."
