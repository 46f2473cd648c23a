"""Several runs on one page: what each gained and what it cost, a table, settings that differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fpo.comparison.layout import JUDGED, RESULT_FILE, START_FILE, TABLE_FILE, costs
from fpo.curves import read_log
from fpo.provenance import setting_text
from fpo.reporting.charts import Chart, Curve, Point, charts_of_runs, colour_of, is_number
from fpo.reporting.page import filled, safe
from fpo.reporting.record import Record, read_record
from fpo_core.errors import ConfigError
from fpo_core.io.regular import read_json_object
from fpo_core.loss.metric_catalogue import METRICS
from fpo_core.train.run_folder import CONFIG_FILE, LOG_FILE

RUNS = "runs"
_COLUMNS = (
    "raw_accuracy",
    "reward_accuracy",
    "oracle",
    *JUDGED,
    "fpo/kl_chosen",
    "fpo/kl_rejected",
    "fpo/d_chosen",
    "fpo/d_rejected",
    "rewards/margins",
    "entropy",
    "distinct_2",
    "sample_length",
    "perplexity",
    "seconds_per_step",
    "peak_memory",
)
_PLACES = ("output", "cache", "reference", "resume", "backend", "device")
"""Settings whose difference says nothing."""


def is_comparison(folder: Path) -> bool:
    """Whether a folder is the output of `compare`."""
    return (folder / START_FILE).is_file() and (folder / RUNS).is_dir()


def page_of_comparison(folder: Path, places: Sequence[Path] | None = None) -> str:
    """The page of a comparison's runs, by default all finished ones, and of its starting model."""
    if places is None:
        places = sorted(path.parent for path in (folder / RUNS).glob(f"*/{RESULT_FILE}"))
    if not places:
        raise ConfigError(f"{folder} holds no finished run yet: let the comparison go on")
    start = read_json_object(folder / START_FILE, ConfigError)
    judged = _judged(folder / TABLE_FILE)
    runs = [_of_comparison(place, judged) for place in places]
    if len({run["config"]["seed"] for run in runs}) == 1:
        for run in runs:
            run["name"] = run["variant"]
    return _page(folder.resolve().name, runs, start.get("metrics"))


def page_of_runs(folders: Sequence[Path]) -> str:
    """The page of several runs."""
    names = _names(folders)
    runs = [_of_run(name, folder) for name, folder in zip(names, folders, strict=True)]
    first = read_record(folders[0]) or {}
    return _page(" · ".join(names), runs, first.get("before"))


def _names(folders: Sequence[Path]) -> list[str]:
    names = [folder.resolve().name for folder in folders]
    return names if len({*names}) == len(names) else [str(folder) for folder in folders]


def _judged(table: Path) -> dict[tuple[str, int], Record]:
    """What the judge of a comparison's settings said, by variant and seed."""
    if not table.is_file():
        return {}
    runs = read_json_object(table, ConfigError)["runs"]
    return {(r["variant"], r["seed"]): {n: r["metrics"].get(n) for n in JUDGED} for r in runs}


def _of_comparison(folder: Path, judged: Mapping[tuple[str, int], Record]) -> Record:
    result = read_json_object(folder / RESULT_FILE, ConfigError)
    costs = {name: result.get(name) for name in ("seconds_per_step", "peak_memory")}
    return {
        "name": f"{result['variant']} seed={result['seed']}",
        "variant": result["variant"],
        "metrics": costs | result["metrics"] | judged.get((result["variant"], result["seed"]), {}),
        "config": result["config"],
        "log": folder / LOG_FILE,
    }


def _of_run(name: str, folder: Path) -> Record:
    record, log = read_record(folder) or {}, folder / LOG_FILE
    metrics = record.get("after")
    if metrics is None:
        evals = [event for event in read_log(log) if event["kind"] == "eval"]
        last = evals[-1] if evals else {}
        metrics = {key.removeprefix("eval_"): value for key, value in last.items()}
        metrics["raw_accuracy"] = metrics.get("fpo/raw_accuracy")
    config = read_json_object(folder / CONFIG_FILE, ConfigError)
    return {
        "name": name,
        "variant": name,
        "metrics": costs(log) | metrics,
        "config": config,
        "log": log,
    }


def _page(title: str, runs: Sequence[Record], start: Mapping[str, Any] | None) -> str:
    logs = {run["name"]: read_log(run["log"]) for run in runs}
    curves = charts_of_runs({safe(name): events for name, events in logs.items()})
    frontier = _frontier(runs, start)
    values = {
        "title": safe(title),
        "about": [f"{len(runs)} runs"],
        "frontier": frontier,
        "runs": safe(_table(runs, start)),
        "charts": curves,
        "differences": safe(_differences(runs)),
    }
    return filled(values, [*frontier, *curves])


def value_of(metrics: Mapping[str, Any], name: str) -> float | None:
    """A metric of a run in its unit; a share comes with its interval."""
    value = metrics.get(name)
    value = value.get("value") if isinstance(value, Mapping) else value
    return value / METRICS[name].per_unit if isinstance(value, int | float) else None


def _frontier(runs: Sequence[Record], start: Mapping[str, Any] | None) -> list[Chart]:
    """Accuracy, and the judge's score where there is one, against KL on chosen completions."""
    names = ("raw_accuracy", "oracle", "judge_score", "win_rate")
    charts = [_against_kl(runs, start, name) for name in names]
    return [chart for chart in charts if chart is not None]


def _against_kl(runs: Sequence[Record], start: Mapping[str, Any] | None, name: str) -> Chart | None:
    variants = list(dict.fromkeys(run["variant"] for run in runs))
    points: dict[str, list[tuple[Point, str]]] = {variant: [] for variant in variants}
    for run in runs:
        kl, value = (value_of(run["metrics"], n) for n in ("fpo/kl_chosen", name))
        if is_number(kl) and is_number(value):
            points[run["variant"]].append(((kl, value), safe(run["name"])))
    every = [point for marks in points.values() for point, _ in marks]
    if not every:
        return None
    begun = value_of(start or {}, name)
    first = [] if begun is None else [((0.0, begun), "start")]
    curves = [
        Curve(
            safe(variant),
            [point for point, _ in marks],
            colour_of(number),
            labels=[label for _, label in marks],
        )
        for number, (variant, marks) in enumerate(points.items())
    ]
    if first:
        curves.append(Curve("start", [first[0][0]], 2, labels=["start"]))
    edge = _edge([*every, *(point for point, _ in first)])
    line = [Curve("frontier", edge, 2, joined=False)] if len(edge) > 1 else []
    label = METRICS[name].label
    return Chart.of(
        f"{label[0].upper()}{label[1:]} against KL", label, [*line, *curves], x_label="KL, chosen"
    )


def _edge(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both: less KL and more of the other."""
    frontier: list[Point] = []
    for point in sorted(points, key=lambda p: (p[0], -p[1])):
        if not frontier or point[1] > frontier[-1][1]:
            frontier.append(point)
    return frontier


def _table(runs: Sequence[Record], start: Mapping[str, Any] | None) -> Record:
    every = [("start", start or {}), *((run["name"], run["metrics"]) for run in runs)]
    every = every[not start :]
    present = [n for n in _COLUMNS if any(value_of(m, n) is not None for _, m in every)]
    rows = [
        [{"text": name, "value": None}, *(_cell(metrics, n) for n in present)]
        for name, metrics in every
    ]
    return {"head": ["run", *(METRICS[n].short for n in present)], "rows": rows}


def _cell(metrics: Mapping[str, Any], name: str) -> Record:
    value = value_of(metrics, name)
    if value is None:
        return {"text": "–", "value": None}
    return {"text": f"{value:{METRICS[name].format}}", "value": value}


def _differences(runs: Sequence[Record]) -> Record | tuple[()]:
    """Settings that are not the same in all runs, a run a column."""
    names = list(dict.fromkeys(key for run in runs for key in run["config"]))
    rows = []
    for name in names:
        values = [setting_text(name, run["config"].get(name)) for run in runs]
        if name not in _PLACES and len({*values}) > 1:
            rows.append([name, *values])
    if not rows:
        return ()
    return {"head": ["setting", *(run["name"] for run in runs)], "rows": rows}
