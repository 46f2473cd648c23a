"""What `fpo compare` does: plan, run what is left, and write tables and curves."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fpo.backends import select_backend
from fpo.comparison import table
from fpo.comparison.curves import draw
from fpo.comparison.plan import OWN, Planned, plan
from fpo.comparison.runs import Comparison, Result, place
from fpo.example import Example
from fpo.training import check_folder
from fpo_cli.console.options import read_yaml
from fpo_cli.console.ui import Ui
from fpo_core.config import BackendConfig, CompareConfig, TrainConfig
from fpo_core.errors import ConfigError
from fpo_core.io.atomic import write_atomically, write_json
from fpo_core.train.run_folder import LOG_FILE


def compare(
    config: CompareConfig, ui: Ui, example: Example | None = None, grid: Sequence[str] = ()
) -> dict[str, Any]:
    """Plan, run, tabulate and draw; the mapping that --json prints.

    On an example, `grid` is what suits it, under what the settings say.
    """
    began = time.perf_counter()
    select_backend(BackendConfig(backend=config.backend))
    check_folder(config.output)
    output = Path(config.output)
    if example is None:
        assert config.settings is not None, "no example and no settings"
        source, shared = config.settings, read_yaml(Path(config.settings))
    else:
        source, shared = str(example.settings), example.training(output)
        config = replace(config, grid=_over(config, grid))
    runs = plan(config, _of_training(shared, source) | _computing(config), source)
    if example is not None:
        example.convert(output)
    start, results = Comparison(config, runs, example and example.judge, ui).results()
    return _written(output, runs, start, results, time.perf_counter() - began, ui)


def _of_training(settings: dict[str, Any], source: str) -> dict[str, Any]:
    """Settings that are not a comparison's own. ConfigError for keys that `fpo train` lacks."""
    for key in settings:
        if key not in TrainConfig.names():
            raise ConfigError(f"{source} has the key {key!r}, expected those of `fpo train`")
    return {key: value for key, value in settings.items() if key not in OWN or key == "reference"}


def _computing(config: CompareConfig) -> dict[str, Any]:
    given = {name: getattr(config, name) for name in ("backend", "device", "dtype")}
    return {name: value for name, value in given.items() if value != "auto"}


def _over(config: CompareConfig, grid: Sequence[str]) -> tuple[str, ...]:
    """The grid of an example, less what was given or is of objectives not compared."""
    given = config.grid or ()
    named = {text.partition("=")[0] for text in given}

    def counts(text: str) -> bool:
        name = text.partition("=")[0]
        objective, dot, _ = name.rpartition(".")
        compared = not dot or config.objectives is None or objective in config.objectives
        return name not in named and compared

    return (*filter(counts, grid), *given)


def _written(
    folder: Path,
    runs: Sequence[Planned],
    start: Result,
    results: Sequence[Result],
    seconds: float,
    ui: Ui,
) -> dict[str, Any]:
    rows = table.rows(results)
    text = table.markdown(rows, start)
    steps = sum(result["step_seconds"] for result in results)
    cost = {
        "seconds": seconds,
        "step_seconds": steps,
        "reference_seconds": start["reference_seconds"],
        "runs_seconds": sum(result["seconds"] for result in results),
    }
    bare = [{k: v for k, v in result.items() if k != "config"} for result in results]
    for result in bare:
        result["metrics"] = {k: v for k, v in result["metrics"].items() if k != "completions"}
    write_json(folder / "compare.json", {"table": rows, "runs": bare, "cost": cost})
    for name, content in (("compare.md", text), ("compare.csv", table.as_csv(rows))):
        write_atomically(folder / name, lambda path, content=content: _write(path, content))
    logs = [place(folder, planned) / LOG_FILE for planned in runs]
    draw(logs, results, folder / "compare.png", f"{len(results)} runs")
    ui.say(text)
    ui.say(
        f"{seconds:.0f} s, of them {steps:.0f} s in steps of all runs; tables and curves in "
        f"{folder / 'compare.md'}, .csv, .json and .png"
    )
    return {"output": str(folder), "start": start, "table": rows, "runs": bare, "cost": cost}


def _write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
