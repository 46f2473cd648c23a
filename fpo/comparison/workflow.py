"""Objectives, or any settings, side by side: plan, run what is left, write tables and curves."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpo.backends import select_backend
from fpo.comparison import tables
from fpo.comparison.curves import figure_of_runs
from fpo.comparison.layout import START_FILE, TABLE_FILE, run_folder
from fpo.comparison.plan import COMPARISONS, Planned, plan
from fpo.comparison.runs import Comparison, RunResult
from fpo.example_inputs import Example, quickstart_world
from fpo.reporting.page_file import REPORT_FILE, is_page, write_page
from fpo.reporting.several import page_of_comparison
from fpo.results import Result, Table
from fpo.run_checks import writing_output
from fpo.workflow import Stop, workflow
from fpo_core.config import BackendConfig, CompareConfig, TrainConfig
from fpo_core.config.yaml_file import read_yaml
from fpo_core.errors import ConfigError
from fpo_core.events import Sink
from fpo_core.io.atomic import replacing, write_atomically, write_json
from fpo_core.io.ownership import check_foreign
from fpo_core.train.run_folder import CONFIG_FILE, LOG_FILE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class ComparisonResult(Result):
    """Runs side by side; tables and curves lie in `output` too."""

    output: Path
    start: RunResult
    """Measurements of the starting model."""
    rows: list[dict[str, Any]]
    """A row per variant: means over seeds, and their spread."""
    runs: list[RunResult]
    """Every run: variant, seed, metrics, time and memory."""
    logs: list[Path]
    """The JSONL log of each run."""
    cost: dict[str, float]
    """Seconds altogether, in steps, in the reference pass and in runs."""
    report: Path | None = None
    """The page with everything to look at; None where none was asked for."""

    def plot(self) -> "Figure":
        """Accuracy and D over the steps, KL and entropy at the end, as a matplotlib figure."""
        return figure_of_runs(self.logs, self.runs, f"{len(self.runs)} runs")

    def table(self) -> Table:
        """A variant a row, the starting model first."""
        return tables.table(self.rows, self.start)

    def to_mapping(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return {
            "output": str(self.output),
            "start": self.start,
            "table": self.rows,
            "runs": self.runs,
            "cost": self.cost,
            "report": self.report and str(self.report),
        }


@workflow(CompareConfig)
def compare(
    config: CompareConfig,
    sink: Sink,
    stop: Stop | None = None,
    example: Example | None = None,
) -> ComparisonResult:
    """Train objectives, or any grid over settings, from one stored reference, and compare them.

    Every run has the same seeds and batches. Writes compare.md, .csv, .json and .png into `output`:
    accuracy, diversity, drift, time and memory, with their spread over seeds. Stopped at any point,
    the same call goes on: finished runs are read, a begun one resumes.

    Without `settings`, the runs are on the quickstart's world, or on an `example`; its own grid
    counts for what the settings do not vary.
    """
    began = time.perf_counter()
    select_backend(BackendConfig(backend=config.backend))
    output = Path(config.output)
    tables_of = [output / f"compare.{ending}" for ending in ("json", "md", "csv", "png")]
    check_foreign(tables_of, lambda _: (output / START_FILE).is_file())
    check_foreign([output / REPORT_FILE] if config.report else [], is_page)
    if (output / CONFIG_FILE).is_file():
        raise ConfigError(f"output is {output}, which holds a training run: choose another folder")
    if config.settings is not None:
        example, source = None, config.settings
        shared = read_yaml(Path(source))
    else:
        example = example or quickstart_world()
        source, shared = str(example.settings), example.training(output)
        config = replace(config, grid=_over(config, example.grid))
    runs = plan(config, _of_training(shared, source) | _computing(config), source)
    with writing_output(config.output):
        if example is not None:
            example.convert(output)
        comparison = Comparison(config, runs, example and example.judge, sink, stop)
        start, results = comparison.results()
        compared = _written(output, runs, start, results, time.perf_counter() - began)
        if config.report:
            places = [run_folder(output, planned) for planned in runs]
            write_page(output / REPORT_FILE, page_of_comparison(output, places))
            compared = replace(compared, report=output / REPORT_FILE)
        return compared


def _of_training(settings: dict[str, Any], source: str) -> dict[str, Any]:
    """Settings that are not a comparison's own. ConfigError for keys that training lacks."""
    for key in settings:
        if key not in TrainConfig.names():
            raise ConfigError(f"{source} has the key {key!r}, expected those of training")
    return {
        key: value
        for key, value in settings.items()
        if key not in COMPARISONS or key == "reference"
    }


def _computing(config: CompareConfig) -> dict[str, Any]:
    chosen = {name: getattr(config, name) for name in ("backend", "device", "dtype")}
    return {name: value for name, value in chosen.items() if value != "auto"}


def _over(config: CompareConfig, grid: Sequence[str]) -> tuple[str, ...]:
    """The grid of an example, less what the settings vary or is of objectives not compared."""
    over = config.grid or ()
    varied = {text.partition("=")[0] for text in over}

    def counts(text: str) -> bool:
        name = text.partition("=")[0]
        objective, dot, _ = name.rpartition(".")
        compared = not dot or config.objectives is None or objective in config.objectives
        return name not in varied and compared

    return (*filter(counts, grid), *over)


def _written(
    folder: Path,
    runs: Sequence[Planned],
    start: RunResult,
    results: Sequence[RunResult],
    seconds: float,
) -> ComparisonResult:
    # The settings are in each run's folder, and samples would drown the numbers.
    bare = [{k: v for k, v in result.items() if k != "config"} for result in results]
    for result in bare:
        result["metrics"] = {k: v for k, v in result["metrics"].items() if k != "completions"}
    compared = ComparisonResult(
        output=folder,
        start=start,
        rows=tables.rows(results),
        runs=bare,
        logs=[run_folder(folder, planned) / LOG_FILE for planned in runs],
        cost={
            "seconds": seconds,
            "step_seconds": sum(result["step_seconds"] for result in results),
            "reference_seconds": start["reference_seconds"],
            "runs_seconds": sum(result["seconds"] for result in results),
        },
    )
    values = compared.to_mapping()
    write_json(folder / TABLE_FILE, {name: values[name] for name in ("table", "runs", "cost")})
    markdown, csv = tables.markdown(compared.rows, start), tables.as_csv(compared.rows)
    for name, content in (("compare.md", markdown), ("compare.csv", csv)):
        write_atomically(folder / name, lambda path, content=content: _write(path, content))
    with replacing(folder / "compare.png") as temporary:
        compared.plot().savefig(temporary, format="png", dpi=130)
    return compared


def _write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
