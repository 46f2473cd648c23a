"""What docs/sae-training.md says of training autoencoders, computed again from the results."""

import re
from pathlib import Path
from statistics import median

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


def forward_words() -> str:
    """The model's pass, and all of a run that reads each token and learns from it once."""
    passes, learning = result("sae-forward"), result("sae-training-speed")["median"]
    rates = {name: median(found) for name, found in passes["tokens_per_cpu_second"].items()}
    ours, theirs = (1 / rates[name] + 1 / learning[name] for name in ("fpo", "sae-lens"))
    ratio = passes["time_ratio"]
    return (
        "The model's pass up to block 24, the same for both, takes "
        f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}] of SAELens' time in "
        f"float32; with it, where each token is read and learnt from once, a run takes "
        f"{ours / theirs:.2f} of theirs."
    )


def test_the_pass_is_counted() -> None:
    assert forward_words() in WORDS


def test_backends_learn_the_same() -> None:
    found = result("sae-backends")
    loss, fvu = found["largest_difference_of_loss"], found["difference_of_fvu"]
    assert f"by at most {loss:.0e} in 50 steps" in WORDS
    assert f"{found['mlx']['tokens_per_cpu_second']:,.0f} tokens per CPU second" in WORDS
    assert loss < 1e-4
    assert fvu < 0.005


def fvus(trainer: str, width: str, rate: float | None = None) -> str:
    """Unexplained variance of a trainer's runs at a rate, seeds in turn."""
    return by_seed(f"activations-{width}", trainer, rate, "fvu", "{:.3f}")


def recovered_words() -> str:
    """Cross-entropy recovered by the autoencoders of 1,024 features."""
    rows, words = result("sae-recovered")["rows"], []
    for trainer in ("fpo-default", "sae-lens-0.01"):
        chats = [rows[f"{trainer}-{seed}"]["chat"] for seed in (1, 2)]
        shares = " and ".join(f"{chat['ce_recovered']:.1%}" for chat in chats)
        apart = " and ".join(f"{chat['recovered']['kl']:.2f}" for chat in chats)
        words.append(f"{shares} (KL {apart})")
    return (
        "In place of the activations, their reconstructions recover of the cross-entropy of 24 "
        f"held-out chats {words[0]} with seeds 1 and 2, SAELens' at its best rate {words[1]}."
    )


def wide_words() -> str:
    """Autoencoders of 4,096 features."""
    runs = result("sae-training-activations-4096")["runs"]
    dead = max(run["dead"] for run in runs if run["trainer"] == "fpo")
    rivals = sorted((r["rate"] for r in runs if r["trainer"] == "sae-lens"), reverse=True)
    theirs = " and ".join(f"{fvus('sae-lens', '4096', rate)} at {rate:g}" for rate in rivals)
    return (
        "With 4,096 features and 1.4 million tokens, as many as the autoencoder in "
        f"examples/smollm2 saw, fpo leaves {fvus('fpo', '4096')} unexplained (up to {dead:.1%} "
        f"never fire). SAELens' trainer, with one seed and no other rates, left {theirs}: here it "
        "had less tuning, so this compares nothing."
    )


def test_what_is_said_of_recovery_and_width() -> None:
    assert " ".join(recovered_words().split()) in WORDS
    assert " ".join(wide_words().split()) in WORDS
    runs = result("sae-training-activations-4096")["runs"]
    ours = [run["fvu"] for run in runs if run["trainer"] == "fpo"]
    assert len(ours) == 3
    assert max(ours) <= 0.233, "the autoencoder in examples/smollm2"


def test_what_a_run_showed() -> None:
    found = result("sae-whole-way")
    for step in found["steps"]:
        if step["step"] in ("sae train", "sae check", "eval"):
            _, _, rest = DOCS.partition(f"$ {step['command']}\n")
            shown = re.split(r"\n(?:```|\$ )", rest)[0].splitlines()
            assert shown
            assert shown == [row for row in step["rows"] if row.strip()]
    summary = found["summary"]
    assert f"took {summary['minutes']:.0f} minutes, {summary['cpu_minutes']:.0f} of a" in WORDS
    assert summary["minutes"] < 20


def test_kills() -> None:
    for backend in ("torch", "mlx"):
        found = result(f"kill-sae-training-{backend}")
        assert found["bit_equal"] == found["runs"]
        words = f"{backend}: {found['kills']} kills in {found['runs']} runs, all bit-equal"
        assert words in README


def test_memory() -> None:
    for backend in ("torch", "mlx"):
        found = result(f"sae-memory-{backend}")
        words = (
            f"{backend}: {found['ratio']:.2f} of the forecast over {found['tokens']:,} tokens, "
            f"{found['last_quarter_of_second']:.2f} of the second quarter in the last"
        )
        assert words in README
        assert abs(found["ratio"] - 1) <= 0.1
        assert found["last_quarter_of_second"] < 1.01
