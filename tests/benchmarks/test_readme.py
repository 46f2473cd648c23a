"""Every row of the tables in benchmarks/README.md, computed again from the result file it names."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import drift_floor, sweep
from benchmarks.bench_smollm2 import BEGIN, END, shown
from fpo_core.config import LEARNING, TrainConfig
from fpo_core.config.optimizer_table import OPTIMIZERS

ROOT = Path(__file__).parents[2]
README = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
SHAPES = {
    "smollm2-135m-M-float32-cpu-4096": "M",
    "smollm2-135m-M-float32-cpu-65536": "M, 65,536 features",
    "gemma-2-narrow-M-float32-cpu-4096": "narrow",
}


def result(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def ratio(values: dict[str, float], digits: int) -> str:
    median, low, high = (f"{values[key]:.{digits}f}" for key in ("median", "low", "high"))
    return f"{median} [{low}, {high}]"


def rows_with(*heads: str, page: str = README) -> list[list[str]]:
    """The cells of the table whose head begins with these."""
    _, _, rest = page.partition("| " + " | ".join(heads) + " |")
    lines = rest.split("\n\n")[0].splitlines()[2:]
    assert lines, heads
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def linked(cell: str) -> dict[str, Any]:
    match = re.search(r"\(results/(.*)\.json\)", cell)
    assert match is not None, cell
    return result(match[1])


@pytest.mark.parametrize("name", ["kernels-torch", "kernels-torch-singly"])
def test_kernels(name: str) -> None:
    expected = []
    for key, shape in result(name)["shapes"].items():
        for kernel, row in shape["rows"].items():
            seconds = f"{row['seconds']:.2f} / {row['seconds_without']:.2f} s"
            sizes = f"{row['peak_gb']:.2f} / {row['peak_gb_without']:.2f} GB"
            time, memory = ratio(row["time_ratio"], 3), f"{row['memory_ratio']:.3f}"
            cells = (f"[{SHAPES[key]}](results/{name}.json)", kernel)
            expected.append([*cells, seconds, time, sizes, memory])
    shown = [row[:6] for row in rows_with("shape", "kernel", "with / without")]
    assert [row for row in shown if f"results/{name}.json" in row[0]] == expected


def test_a_step_beside_earlier_commits() -> None:
    name = "step-torch-tiny-tiny-slices-beside"
    shown = result(name)
    row = shown["rows"]["fpo"]
    said = f"{ratio(row['time_ratio'], 3)} of {1000 * row['seconds']:.0f} ms\n([tiny](results/"
    assert f"{said}{name}.json), {shown['setting']['steps']} steps)" in README
    assert f"{(row['time_ratio']['median'] - 1) * row['seconds'] * 1000:.1f} ms in a step" in README
    assert row["time_ratio"]["median"] <= 1.01
    for mark, bar in (("", 1.01), ("-drift", 1.02)):
        name = f"step-torch-smollm2-135m-M-slices-beside{mark}"
        on_m = result(name)
        time, steps = on_m["rows"]["fpo"]["time_ratio"], on_m["setting"]["steps"]
        assert f"{ratio(time, 3)} ([M](results/{name}.json), {steps} steps)" in README
        assert time["high"] <= bar


def test_peers() -> None:
    for cells in rows_with("shape", "peer"):
        shown = linked(cells[0])
        row = shown["rows"][cells[1]]
        assert cells[2] == str(shown["setting"]["steps"])
        assert cells[3] == f"{row['fpo_seconds']:.1f} / {row['peer_seconds']:.1f} s"
        assert cells[4] == ratio(row["time_ratio"], 2)
        assert cells[5] in ("–", ratio(row.get("cpu_time_ratio", row["time_ratio"]), 2))
        memory = f"{row['fpo_gb']:.1f} / {row['peer_gb']:.1f} GB, {row['memory_ratio']:.2f}"
        assert cells[7] == memory


def test_steps() -> None:
    for cells in rows_with("step", "beside"):
        shown = linked(cells[3])
        row = shown["rows"][cells[0].lower()]
        assert cells[4] == str(shown["setting"]["steps"])
        assert cells[5] == ratio(row["time_ratio"], 2)
        assert cells[6] == f"{row['memory_ratio']:.2f}"


def test_features_beside_simpo() -> None:
    for cells in rows_with("backend", "shape", "steps", "SimPO"):
        shown = linked(cells[1])
        row, simpo = shown["rows"]["fpo"], shown["rows"]["simpo"]
        assert cells[2] == str(2 * shown["setting"]["steps"])  # on each of two cores
        assert cells[3] == f"{simpo['seconds']:.1f} s"
        assert cells[4] == ratio(row["time_ratio"], 3)
        on_mlx = cells[0] == "MLX"
        assert cells[5] == ("–" if on_mlx else f"{row['memory_ratio']:.3f}")
        assert cells[6] == f"{row['memory_ratio' if on_mlx else 'arrays_ratio']:.3f}"


def test_reference() -> None:
    backend, rows = "", {}
    for cells in rows_with("backend", "shape", "over the same rows"):
        if cells[0]:
            backend, rows = cells[0], linked(cells[0])["rows"]
        for cell, kind in zip(cells[2:], ("rows", "packed"), strict=True):
            assert cell == ratio(rows[cells[1]][kind]["speed"], 2), backend


def test_truncation() -> None:
    page = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    rows = rows_with("budget, tokens", "truncation", "pairs left", "raw accuracy", page=page)
    assert rows == [
        [
            str(row["budget"]),
            row["truncation"],
            f"{row['pairs']:.0f}",
            *(f"{row[key] + 1e-9:.3f}" for key in ("raw_accuracy", "whole", "preferred")),
        ]
        for row in result("truncation")["means"]
    ]


def test_what_each_setting_did() -> None:
    page = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    assert "\n\n".join(map(sweep.table, result(sweep.NAME)["sweeps"])) in page


def test_the_real_model() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{BEGIN}\n\n{shown(result('smollm2')['runs']['fpo'])}\n\n{END}" in page


def test_what_adamw_reaches_on_the_example() -> None:
    """The figure beside which LOZO's are set."""
    page = (ROOT / "docs" / "zeroth-order.md").read_text(encoding="utf-8")
    run = result("smollm2")["runs"]["fpo"]
    assert f"brings it to 1 in {run['steps']} steps" in page
    assert run["after"]["raw_accuracy"]["value"] == 1


def test_the_device_of_a_step() -> None:
    profile = result("step-torch-gemma-2-2b-A-cuda")["profile"]
    busy, kinds = profile["busy_ms"], profile["kinds_ms"]
    (label,) = (row["ms"] for row in profile["top"] if row["name"].startswith("Optimizer.step"))
    said = " ".join(README.split())
    assert f"busy for {busy - label:.0f} ms of that step" in said
    assert f"({kinds['matrix products']:.0f} ms of matrix products" in said
    assert f"{kinds['attention']:.0f} ms of attention; {busy:.0f} ms with the range" in said


def test_the_quickstart_over_seeds() -> None:
    page = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    found = result("quickstart")
    rises = [r["oracle"] - r["oracle_before"] for r in found["runs"] if r["alpha"] == "default"]
    summary = found["summary"]
    rise = f"rises by {summary['oracle_rise']:.2f} ({min(rises):.2f} to {max(rises):.2f})"
    assert rise in page
    assert f"falls by {-summary['oracle_rise_without']:.2f} on average" in page
    assert f"{round(1 / summary['d_rejected_ratio'], -2):.0f} times as large" in page


def test_the_floor_of_d() -> None:
    page, found = drift_floor.PAGE.read_text(encoding="utf-8"), result("drift_floor-torch-smollm2")
    table = drift_floor.shown(found)
    assert f"{drift_floor.BEGIN}\n\n{table}\n\n{drift_floor.END}" in page
    floor, told = found["floor"]["bfloat16"], found["above_floor"]
    told_of = [row["stored"] for row in found["rows"] if row["stored"]["d"] > told * floor]
    assert told_of
    assert all(row["cosine_constraint"] > 0.9 for row in told_of)


def test_presets() -> None:
    page = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    rows = rows_with("preset", "`--rpo-alpha`", page=page)
    for text, width in (("a model 128 wide has", 128), ("one of\n2,048 has", 2048)):
        runs = [_default(fine_tune_type=kind) for kind in ("lora", "full")]
        scaled = [_power(run.learning_rate_at(width) or 0) for run in runs]
        assert f"{text} {' and '.join(scaled)}" in page
    adapters, full = OPTIMIZERS["adamw"].rates
    none = ["`none`", "0", *(_power(rate) for rate in (adapters, full))]
    shown = [
        [
            f"`{name}`",
            f"{settings['adapters']['rpo_alpha']:g}",
            *(_power(settings[kind]["learning_rate"]) for kind in ("adapters", "full")),
        ]
        for name, settings in LEARNING.items()
    ]
    assert rows == [*shown, none]
    assert all(s["full"]["rpo_alpha"] == s["adapters"]["rpo_alpha"] for s in LEARNING.values())


def _default(**settings: Any) -> TrainConfig:
    return TrainConfig.from_mapping(
        {"model": "m", "data": "d", "output": "o", "sae": "s"} | settings
    )


def _power(rate: float) -> str:
    """As `3e-4` or `1.7e-4`: two digits at most."""
    digits, power = f"{rate:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e{int(power)}"


def test_default_runs_and_ones_that_break_the_model() -> None:
    runs = result("first_hour")["runs"]
    default = runs["default"]
    seconds, off = default["cpu_seconds"], default["estimate_off"]
    both = (seconds["validation"] + seconds["measuring"]) / seconds["total"]
    facts = {
        name: f"{run['before']['facts']} → {run['after']['facts']}" for name, run in runs.items()
    }
    row = (
        f"validation takes {default['validation_share']:.0%} of the run (bar 15%), {both:.0%} with "
        "the measuring of start and end; the estimate is off by "
        f"{off['training']:+.0%} in training "
        f"and {off['validation']:+.0%} in validation (bar 20%); general questions right "
        f"{facts['default']} on own pairs and {facts['moods']} on mood pairs; at ten times the "
        f"rate {facts['moods-lr-x10']} on mood pairs, called broken, but {facts['lr-x10']} on own "
        f"pairs, which bear it; there {facts['lr-x100']} at a hundred times, called broken"
    )
    assert row in README
    assert default["validation_share"] <= 0.15
    assert max(abs(off[phase]) for phase in ("training", "validation")) <= 0.2
    broken = [name for name, run in runs.items() if run["verdict"][1].startswith("Drifted? broken")]
    assert broken == ["lr-x100", "moods-lr-x10"]


def test_damage_kills_and_two_at_once() -> None:
    found = result("faults")
    mutations, kills, pairs = (found[part] for part in ("mutations", "kills", "pairs"))
    row = (
        f"{mutations['total']:,} mutations ({mutations['right']:,} read right, "
        f"{mutations['refused']:,} refused, {mutations['told']:,} told of, {mutations['noticed']} "
        f"inputs without a hash of their own read as others), {kills['total']} kills with the same "
        f"end bit for bit, {pairs['runs']} runs two at once: {found['faults']} faults"
    )
    assert row in README
    assert found["faults"] == 0
    assert not any(each["wrong"] for each in kills["by_name"].values())
    assert max(each["most_leftovers_after_a_kill"] for each in kills["by_name"].values()) <= 1


def test_the_first_hour() -> None:
    """The figures of the newcomer's script in the main README."""
    page = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    found = result("newcomer")
    summary = found["summary"]
    words = (
        f"took {summary['cpu_minutes']:.1f} minutes of processor time",
        f"{summary['minutes']:.1f} on the wall",
        f"more than {summary['longest_silence']:.1f} s without a sign",
    )
    assert [word for word in words if word not in page] == []
    assert summary["minutes"] <= 20
    assert summary["longest_silence"] <= 2


def test_report() -> None:
    shown = result("report")
    rows = {cells[0]: cells[1:] for cells in rows_with("backend", "scoring", "with KL")}
    assert rows == {name: report_row(shown["build"][name]) for name in shown["build"]}
    opened = {cells[0]: cells[1:] for cells in rows_with("browser, at a", "openings")}
    assert opened == {name: opened_row(row) for name, row in shown["open"].items()}
    numbers = {
        cells[0]: cells[1:] for cells in rows_with("run", "largest difference from NumPy: features")
    }
    assert numbers == {name: number_row(row) for name, row in shown["numbers"].items()}


def report_row(row: dict[str, Any]) -> list[str]:
    seconds = row["seconds"]
    pages = [name for name in seconds if name.startswith("page")]
    shown = [f"{seconds[name]:.1f} s" for name in ("scoring", "scoring with KL", *pages)]
    shown += [f"{row['to scoring'][name]:.2f}" for name in pages]
    return [*shown, f"{row['to scoring with KL'][pages[-1]]:.2f}"]


def opened_row(row: dict[str, Any]) -> list[str]:
    median, best = row["seconds, median"], row["seconds, best"]
    seconds = [f"{median[n]:.1f} s ({best[n]:.1f})" for n in ("drawn", "answered", "thread")]
    return [str(row["rounds"]), f"{row['bytes'] / 1e6:.1f} MB", *seconds]


def number_row(row: dict[str, Any]) -> list[str]:
    found = row["largest difference from NumPy"]
    between = row["largest difference between backends"]
    sums = [value for both in row["sum of contributions over D"].values() for value in both]
    return [
        f"{max(gap for name, gap in found.items() if name != 'tokens'):.0e}",
        f"{found['tokens']:.0e}",
        "–" if between is None else f"{between:.0e}",
        f"1 ± {max(abs(value - 1) for value in sums):.0e}",
    ]
