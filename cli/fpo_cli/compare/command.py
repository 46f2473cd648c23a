"""What `fpo compare` does: plan, run what is left, and write tables and curves."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from fpo_cli.backend import select_backend
from fpo_cli.compare import table
from fpo_cli.compare.curves import draw
from fpo_cli.compare.plan import plan
from fpo_cli.compare.runs import Comparison
from fpo_cli.options import read_yaml
from fpo_cli.training import check_folder
from fpo_cli.ui import Ui
from fpo_cli.world_runs import judge, place_assets, world_settings
from fpo_core.config import BackendConfig, CompareConfig, TrainConfig
from fpo_core.errors import ConfigError
from fpo_core.files import write_atomically, write_json
from fpo_core.train.output import LOG_FILE

WORLD_GRID = Path(__file__).with_name("world.yaml")


def compare(config: CompareConfig, ui: Ui) -> dict[str, Any]:
    """Plan, run, tabulate and draw; the mapping that --json prints."""
    began = time.perf_counter()
    on_world = config.settings is None
    select_backend(BackendConfig(backend=config.backend))
    check_folder(config.output)
    runs = plan(_with_grid(config), _shared(config), config.settings or "the quickstart's settings")
    if on_world:
        place_assets(Path(config.output))
    comparison = Comparison(config, runs, judge if on_world else None, ui)
    start, results = comparison.results()
    seconds = time.perf_counter() - began
    return _written(comparison, start, results, seconds)


def _shared(config: CompareConfig) -> dict[str, Any]:
    """The settings of `fpo train` that all runs have. ConfigError for a key it does not know."""
    output = Path(config.output)
    settings = (
        world_settings(output) if config.settings is None else read_yaml(Path(config.settings))
    )
    for key in settings:
        if key not in TrainConfig.names():
            raise ConfigError(
                f"{config.settings} has the key {key!r}, expected those of `fpo train`"
            )
    computing = {name: getattr(config, name) for name in ("backend", "device", "dtype")}
    given = {name: value for name, value in computing.items() if value != "auto"}
    left_out = ("objective", "seed", "output", "resume", "allow_change", "dry_run")
    return {key: value for key, value in settings.items() if key not in left_out} | given


def _with_grid(config: CompareConfig) -> CompareConfig:
    """On the world, the grid that suits it, under what was given."""
    if config.settings is not None:
        return config
    given = config.grid or ()
    named = {text.partition("=")[0] for text in given}
    objectives = config.objectives
    own = [
        text
        for text in read_yaml(WORLD_GRID)["grid"]
        if text.partition("=")[0] not in named
        and (objectives is None or text.partition(".")[0] in objectives or "." not in text)
    ]
    return replace(config, grid=(*own, *given))


def _written(
    comparison: Comparison, start: dict[str, Any], results: list[dict[str, Any]], seconds: float
) -> dict[str, Any]:
    folder, ui = comparison.folder, comparison.ui
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
    logs = [comparison.place(planned) / LOG_FILE for planned in comparison.runs]
    draw(logs, results, folder / "compare.png", f"{len(results)} runs")
    ui.say(text)
    ui.say(
        f"{seconds:.0f} s, of them {steps:.0f} s in steps of all runs; tables and curves in "
        f"{folder / 'compare.md'}, .csv, .json and .png"
    )
    return {"output": str(folder), "start": start, "table": rows, "runs": bare, "cost": cost}


def _write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
