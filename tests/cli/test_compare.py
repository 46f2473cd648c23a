"""Comparisons: the plan of runs, tables over seeds, and a small one from start to end."""

import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest

from fpo.comparison.plan import plan
from fpo.comparison.tables import as_csv, markdown, rows
from fpo_core.config import CompareConfig
from fpo_core.errors import ConfigError
from fpo_core.train.run_folder import CONFIG_FILE

from .conftest import Fpo

SHARED = {"model": "m", "data": "d", "sae": "s", "learning_rate": 1e-3}


def planned(shared: dict[str, Any] = SHARED, **options: Any):
    return plan(CompareConfig(**options), shared, "the test")


def test_all_objectives_that_are_possible() -> None:
    assert len(planned()) == 10
    names = [run.objective for run in planned({"model": "m", "data": "d"})]
    assert "fpo" not in names
    assert len(names) == 9


def test_a_grid_takes_each_value_with_each() -> None:
    runs = planned(
        objectives="fpo,dpo,simpo",
        grid="beta=1:10,fpo.alpha=0.5:2,rank=4,dpo.beta=0.1",
        seeds="0,3",
    )
    assert [run.variant for run in runs if run.seed == 3] == [
        "fpo beta=1 alpha=0.5",
        "fpo beta=1 alpha=2",
        "fpo beta=10 alpha=0.5",
        "fpo beta=10 alpha=2",
        "dpo",
        "simpo beta=1",
        "simpo beta=10",
    ]
    assert len(runs) == 14
    assert len({run.name for run in runs}) == 14
    dpo = next(run for run in runs if run.objective == "dpo")
    assert (dpo.config.beta, dpo.config.rank, dpo.config.learning_rate) == (0.1, 4, 1e-3)


def test_a_coefficient_goes_to_the_objectives_that_have_it() -> None:
    runs = planned(objectives="fpo,dpo-norm", grid="alpha=0.25:1")
    assert [run.variant for run in runs] == ["fpo alpha=0.25", "fpo alpha=1", "dpo-norm"]
    shared = planned(SHARED | {"alpha": 3.0}, objectives="tdpo2,simpo")
    assert [run.config.coefficient("alpha") for run in shared] == [3.0, 0.0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"objectives": "fpo,kto"}, "objectives names 'kto'"),
        ({"seeds": "one"}, "seeds names 'one'"),
        ({"grid": "beta"}, "expected a setting and its values"),
        ({"grid": "betta=1"}, "grid varies 'betta'"),
        ({"grid": "seed=1"}, "grid varies 'seed'"),
        ({"grid": "kto.beta=1"}, "expected an objective before the dot"),
        ({"objectives": "dpo", "grid": "gamma=1"}, "which none of dpo has"),
        ({"objectives": "dpo", "grid": "fpo.alpha=1"}, "fpo, which is not compared"),
        ({"objectives": "dpo", "grid": "dpo.alpha=1"}, "grid varies alpha, which none of dpo has"),
    ],
)
def test_what_is_wrong_with_a_plan_is_said(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        planned(**options)


def result(variant: str, seed: int, accuracy: float, entropy: float) -> dict[str, Any]:
    metrics = {"raw_accuracy": {"value": accuracy}, "reward_accuracy": {"value": 1.0}}
    return {
        "variant": variant,
        "seed": seed,
        "metrics": metrics | {"entropy": entropy},
        "seconds_per_step": 0.5,
        "peak_memory": 2**20,
    }


def test_tables_hold_mean_and_spread_over_seeds() -> None:
    results = [result("a", 0, 0.5, 1.0), result("b", 0, 0.75, 2.0), result("a", 1, 0.7, 1.4)]
    table = rows(results)
    assert [(row["variant"], row["seeds"]) for row in table] == [("a", 2), ("b", 1)]
    assert table[0]["raw_accuracy"] == pytest.approx(0.6)
    assert table[0]["raw_accuracy_spread"] == pytest.approx(statistics.stdev([0.5, 0.7]))
    assert table[1]["entropy_spread"] is None
    assert "oracle" not in table[0]
    lines = markdown(table).splitlines()
    assert lines[2].startswith("| a | 2 | 0.600 ± 0.141 |")
    assert lines[3].startswith("| b | 1 | 0.750 |")
    assert as_csv(table).splitlines()[1].startswith("a,2,0.6,0.14142135623730")


@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_a_comparison_survives_being_stopped(backend: str, fpo: Fpo, tmp_path: Path) -> None:
    grid = "iters=2,val_pairs=4,max_rows=12,batch_size=4"
    few = ["--objectives", "fpo,tdpo2", "--grid", grid, "--samples", 2, "--eval-pairs", 4]
    command = ["compare", *few, "--backend", backend, "--output", tmp_path / "c", "--json"]
    ran = fpo(*command)
    assert ran.code == 0, ran.err
    first = ran.json
    assert [row["variant"] for row in first["table"]] == ["fpo", "tdpo2"]
    for row in first["table"]:
        assert {"oracle", "entropy", "kl_margin", "d_margin", "perplexity"} <= set(row)
    for name in ("compare.md", "compare.csv", "compare.json"):
        assert "tdpo2" in (tmp_path / "c" / name).read_text()
    assert (tmp_path / "c" / "compare.png").read_bytes()[:4] == b"\x89PNG"

    stopped = tmp_path / "c" / "runs" / "tdpo2,seed=0"
    (stopped / "result.json").unlink()  # killed after the last step, before it was measured
    shutil.rmtree(tmp_path / "c" / "runs" / "fpo,seed=0")  # killed before the first checkpoint
    again = fpo(*command)
    assert again.code == 0, again.err
    assert "1 of 2 runs" not in again.err
    for was, row in zip(first["table"], again.json["table"], strict=True):
        for key, value in row.items():
            if isinstance(value, float) and key not in ("seconds_per_step", "peak_memory"):
                assert value == pytest.approx(was[key], rel=1e-5), key

    third = fpo(*command)
    assert "2 of 2 runs are there already" in third.err
    assert third.json["table"] == again.json["table"]
    changed = fpo(*command, "--grid", grid.replace("iters=2", "iters=3"))
    assert changed.code == 2
    assert "iters was 2, and here it is 3" in changed.err


def test_a_comparison_of_ones_own_model(fpo: Fpo, world: list[object], tmp_path: Path) -> None:
    options = dict(zip(world[::2], world[1::2], strict=True))
    settings = {str(k)[2:].replace("-", "_"): str(v) for k, v in options.items()}
    file = tmp_path / "run.yaml"
    lines = [f"{key}: {value}" for key, value in (settings | {"iters": 2, "val_pairs": 4}).items()]
    file.write_text("\n".join([*lines, f"cache: {tmp_path / 'cache'}"]))
    few = ["--objectives", "dpo-norm", "--samples", 0, "--eval-pairs", 4, "--backend", "torch"]
    ran = fpo("compare", "--settings", file, *few, "--output", tmp_path / "c", "--json")
    assert ran.code == 0, ran.err
    found = json.loads((tmp_path / "c" / "compare.json").read_text())["table"][0]
    assert "oracle" not in found
    assert found["kl_rejected"] != 0
    file.write_text("alhpa: 1")
    refused = fpo("compare", "--settings", file, *few, "--output", tmp_path / "d")
    assert refused.code == 2
    assert "alhpa" in refused.err


def test_a_training_run_is_not_compared_over(fpo: Fpo, tmp_path: Path) -> None:
    """Its report would be lost."""
    (tmp_path / CONFIG_FILE).write_text("{}")
    ran = fpo("compare", "--output", tmp_path, "--objectives", "dpo", "--seeds", 0)
    assert ran.code == 2
    assert "which holds a training run: choose another folder" in ran.err


def test_links_are_compared_where_an_objective_has_a_u() -> None:
    """aps_rho goes to aps alone, link to neither discopop nor asft, whose loss is their own."""
    runs = planned(
        objectives="dpo,discopop,asft", grid="link=logistic:aps,aps_rho=0.1:0.3,discopop_tau=0.2"
    )
    assert [run.variant for run in runs] == [
        "dpo link=logistic",
        "dpo link=aps aps_rho=0.1",
        "dpo link=aps aps_rho=0.3",
        "discopop",
        "asft",
    ]
    assert runs[2].config.coefficients["aps_rho"] == 0.3
    assert runs[3].config.coefficients["discopop_tau"] == 0.2
