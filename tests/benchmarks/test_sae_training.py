"""What docs/sae-training.md says of training autoencoders, computed again from the results."""

from pathlib import Path

from tests.benchmarks.test_readme import README, result, rows_with

DOCS = (Path(__file__).parents[2] / "docs" / "sae-training.md").read_text(encoding="utf-8")
WORDS = " ".join(DOCS.split())


def by_seed(name: str, trainer: str, rate: float | None, metric: str, form: str) -> str:
    """A figure of the runs of a trainer at a rate, seeds in turn; a dash where there is none."""
    runs = [
        run
        for run in result(f"sae-training-{name}")["runs"]
        if run["trainer"] == trainer and run["rate"] == rate
    ]
    runs.sort(key=lambda run: run["seed"])
    assert [run["seed"] for run in runs] == list(range(len(runs)))
    return ", ".join(form.format(run[metric]) for run in runs) or "–"


def comparison() -> list[list[str]]:
    """The rows of the table."""
    return [
        [
            trainer,
            "default" if rate is None else f"{rate:g}",
            by_seed("planted", trainer, rate, "mean_max_cosine", "{:.3f}"),
            by_seed("activations-1024", trainer, rate, "fvu", "{:.3f}"),
            by_seed("activations-1024", trainer, rate, "dead", "{:.1%}"),
        ]
        for trainer, rates in (("fpo", [None]), ("sae-lens", []))
        for rate in [*rates, 1e-3, 3e-3, 1e-2, 3e-2]
    ]


def test_the_comparison() -> None:
    assert rows_with("trainer", "rate", page=DOCS) == comparison()
    for name, metric, best in (
        ("planted", "mean_max_cosine", max),
        ("activations-1024", "fvu", min),
    ):
        first = [run for run in result(f"sae-training-{name}")["runs"] if run["seed"] == 0]
        assert best(first, key=lambda run: run[metric])["trainer"] == "fpo"


def test_speed() -> None:
    found = result("sae-training-speed")
    rate, ratio = found["median"], found["ratio"]
    words = (
        f"{rate['fpo']:,.0f} tokens per CPU second against {rate['sae-lens']:,.0f}: "
        f"{ratio['median']:.1f} times [{ratio['low']:.1f}, {ratio['high']:.1f}]"
    )
    assert words in WORDS
    assert ratio["median"] >= 2.5


def test_backends_learn_the_same() -> None:
    found = result("sae-backends")
    loss, fvu = found["largest_difference_of_loss"], found["difference_of_fvu"]
    assert f"by at most {loss:.0e} in 50 steps" in WORDS
    assert f"{found['mlx']['tokens_per_cpu_second']:,.0f} tokens per CPU second" in WORDS
    assert loss < 1e-4
    assert fvu < 0.005


def test_what_a_run_showed() -> None:
    step = next(s for s in result("sae-whole-way")["steps"] if s["step"] == "sae train")
    _, _, rest = DOCS.partition(f"```\n$ {step['command']}\n")
    shown = rest.split("\n```")[0].splitlines()
    assert shown
    assert [row for row in shown if row not in step["rows"]] == []
    assert f"{step['cpu_seconds']:.0f} seconds of one processor" in WORDS
    assert f"load of {step['load']:.0f}" in WORDS


def test_memory() -> None:
    found = result("sae-memory-torch")
    words = f"{found['ratio']:.2f} of the forecast over {found['tokens']:,} tokens"
    assert words in README
    assert abs(found["ratio"] - 1) <= 0.1
