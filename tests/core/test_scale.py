"""docs/scale.md: what it foretells of memory is near what was measured."""

import json
from pathlib import Path

import pytest

from benchmarks.record import ROOT
from benchmarks.scale import LARGE, Sizes, Step, tables
from benchmarks.shapes import MODELS, PAIRS

RESULTS = ROOT / "benchmarks" / "results"
WITHIN = 0.15
VARIANTS = {"fpo": {}, "simpo": {"features": 0}, "tdpo2": {"features": 0, "kl": True}}


def read(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def foretold(setting, **changes):
    kind = setting["backend"] if setting["device"] == "cpu" else "cuda"
    width = 4 if setting["dtype"] == "float32" else 2
    options = {"features": setting["d_sae"], "checkpoint": setting["grad_checkpoint"]} | changes
    # The one result of a GPU is older than the kernel for norms.
    options |= {"norm_kernel": kind != "cuda"}
    sizes = Sizes.of(MODELS[setting["model_shape"]][1])
    return Step(sizes, PAIRS[setting["pairs"]], kind, width, **options).memory() / 1e9


def measured():
    """(place, GB measured, GB foretold) of every peak of a packed step's arrays."""
    for path in sorted(RESULTS.glob("step-*.json")):
        result = read(path.stem)
        for name, row in result["rows"].items():
            gb = row.get("arrays_gb")
            setting = result["setting"]
            # A process on a CPU has memory of the interpreter's and of the allocator's besides.
            if gb is None and (setting["backend"], setting["device"]) != ("torch", "cpu"):
                gb = row["peak_gb"]
            if gb is not None and name in VARIANTS:
                yield f"{path.stem}: {name}", gb, foretold(setting, **VARIANTS[name])
    for path in [
        *sorted(RESULTS.glob("peers-mlx-*.json")),
        *sorted(RESULTS.glob("peers-*cuda.json")),
    ]:
        result = read(path.stem)
        for name, row in result["rows"].items():
            yield f"{path.stem}: {name}", row["fpo_gb"], foretold(result["setting"])
    for shape in read("kernels-torch")["shapes"].values():
        for name, row in shape["rows"].items():
            yield f"kernels: {name}", row["peak_gb"], foretold(shape["setting"])
    adamw = read("zeroth_order")["cost"]["torch smollm2-135m M float32"]["rows"]["adamw"]
    sizes = Sizes.of(MODELS["smollm2-135m"][1])
    yield "full", adamw["arrays_gb"], Step(sizes, PAIRS["M"], full=True).memory() / 1e9


MEASURED = list(measured())


@pytest.mark.parametrize(("place", "gb", "expected"), MEASURED, ids=[m[0] for m in MEASURED])
def test_memory_is_foretold(place, gb, expected):
    assert expected == pytest.approx(gb, rel=WITHIN), place


def test_the_table_of_benchmarks_says_how_near():
    off = [100 * (expected / gb - 1) for _, gb, expected in MEASURED]
    text = f"from −{-min(off):.1f} to +{max(off):.1f}%"
    assert text in (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path", sorted(RESULTS.glob("shared-prompts-*.json")), ids=lambda p: p.stem
)
def test_the_table_of_benchmarks_shows_shared_prompts(path):
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    rows = read(path.stem)["rows"]
    for row in rows.values():
        ratio = row["time_ratio"]
        if ratio["low"] != ratio["high"]:  # not the measure itself
            assert f"{ratio['median']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]" in page


def test_parameters_are_those_of_the_models():
    counts = {"Gemma 2 2B": 2.61e9, "Gemma 2 9B": 9.24e9, "Llama 3.1 70B": 70.55e9}
    for name, count in counts.items():
        assert Sizes.of(LARGE[name]).parameters == pytest.approx(count, rel=0.01)


def test_the_page_shows_the_computed_table():
    assert tables() in Path(ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
