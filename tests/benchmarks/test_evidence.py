"""The evidence: rank correlation by hand, and a report from runs whose figures are known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.evidence.drift import FILE
from benchmarks.evidence.measures import NAMES, drifts, hidden_state, random_like
from benchmarks.evidence.ranks import interval, ranks, spearman
from benchmarks.evidence.report import write_report
from benchmarks.evidence.results import Evidence, Run, across_runs, matched
from fpo_core.arrays import numpy_ops
from fpo_core.sae.hook import Hook
from fpo_core.sae.taps import Features, HookedSae
from tests.helpers import random_sae

PAIRS = 50
ATTRIBUTES = ("politeness", "language")


def test_ranks_share_ties() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1, 3.5, 2]


def test_spearman_by_hand() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert spearman(x, np.exp(x)) == pytest.approx(1)
    # Ranks 1 2 3 4 against 2 1 4 3: 1 − 6·(1 + 1 + 1 + 1) / (4·15).
    assert spearman(x, np.array([5.0, 4.0, 9.0, 8.0])) == pytest.approx(0.6)
    assert np.isnan(spearman(x, np.ones(4)))


def test_an_interval_holds_what_it_estimates_and_narrows() -> None:
    generator = np.random.default_rng(0)
    widths = []
    for count in (30, 300):
        x = generator.normal(size=count)
        low, high = interval(spearman, x, x + generator.normal(size=count))
        assert low < 0.69 < high  # ρ of a normal pair with correlation √½ is (6/π) asin(√½ / 2)
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_the_hidden_state_is_compared_by_its_squared_error() -> None:
    features = Features(
        tuple(
            HookedSae(sae, Hook(0, "resid_post"))
            for sae in (random_sae(4, 6), random_sae(4, 6), hidden_state(4))
        )
    )
    reference = np.random.default_rng(0).normal(size=(2, 16))
    policy = reference.copy()
    policy[0, 12:] += [1, -2, 0, 3]
    found = drifts(policy, reference, features, 3, normalize=False)
    assert list(found) == list(NAMES)
    np.testing.assert_allclose(found["hidden"], [(1 + 4 + 9) / 4, 0])
    np.testing.assert_allclose(found["sae"], 0)
    h = np.random.default_rng(1).normal(size=(5, 4))
    np.testing.assert_allclose(hidden_state(4).encode(numpy_ops, h), h, rtol=1e-6)


def test_random_directions_keep_their_lengths() -> None:
    sae = random_sae(8, 20)
    other = random_like(sae)
    lengths = [np.linalg.norm(each.W_enc, axis=0) for each in (sae, other)]
    np.testing.assert_allclose(lengths[1], lengths[0], rtol=1e-5)
    assert not np.allclose(other.W_enc, sae.W_enc)


def write_run(folder: Path, variant: str, seed: int, drift: float, **varied: Any) -> str:
    """A finished run that reaches 0.6, 0.8 and 1.0 of raw accuracy, drifting as it goes."""
    name = f"runs/{variant},seed={seed}"
    (folder / name).mkdir(parents=True)
    scores = dict.fromkeys(ATTRIBUTES, 0.5) | {"politeness": 0.9 - 0.4 * (len(varied) > 1)}
    metrics = {
        "raw_accuracy": {"value": 1.0, "low": 0.9, "high": 1.0},
        "reward_accuracy": {"value": 1.0, "low": 0.9, "high": 1.0},
        "oracle": 0.9,
        "oracle_scores": scores,
        "entropy": 1 / drift,
        "fpo/kl_rejected": drift,
    }
    result = {
        "variant": variant,
        "objective": variant.split(maxsplit=1)[0],
        "varied": {"weights": varied["weights"]} if "weights" in varied else varied,
        "seed": seed,
        "config": {"alpha": 20.0},
        "metrics": metrics,
        "seconds": 12.0,
        "step_seconds": 9.0,
        "seconds_per_step": 0.1,
        "peak_memory": 2**20 * drift,
    }
    (folder / name / "result.json").write_text(json.dumps(result))
    steps = np.array([20, 40, 60])
    kl = drift * steps[:, None] * np.linspace(1, 2, 2 * PAIRS)
    logps = np.zeros((3, 2 * PAIRS))
    for row, share in enumerate((0.6, 0.8, 1.0)):
        logps[row, : int(share * PAIRS)] = 1
        logps[row, PAIRS + int(share * PAIRS) :] = 1
    d = {"d_sae": kl**2, "d_random": 1 / kl, "d_hidden": kl}
    np.savez(folder / name / FILE, step=steps, logps=logps, kl=kl, **d)
    return name


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    """FPO drifts half as far as dpo-norm, a third as far as dpo."""
    drift = {"fpo": 1.0, "dpo-norm": 2.0, "dpo": 3.0, "simpo": 2.0, "tdpo2": 4.0}
    objectives = [
        write_run(tmp_path, name, seed, each + seed / 10)
        for name, each in drift.items()
        for seed in (0, 1)
    ]
    ablation = [write_run(tmp_path, "fpo alpha=20", 0, 0.8, alpha=20.0)]
    control = [
        write_run(tmp_path, f"fpo weights={name}", 0, 1.5, weights=name, alpha=20.0)
        for name in ATTRIBUTES
    ]
    groups = {"objectives": objectives, "ablation": ablation, "control": control, "blocks": []}
    runs = {group: [Run(tmp_path / name) for name in names] for group, names in groups.items()}
    start = {"reference_seconds": 3.0, "metrics": runs["objectives"][0].result["metrics"]}
    Evidence(runs, 2.0, start).write(tmp_path)
    return Evidence.read(tmp_path)


def test_objectives_are_compared_at_one_accuracy(evidence: Evidence) -> None:
    found = matched(evidence, "dpo-norm")
    assert [(each.seed, each.accuracy, each.steps) for each in found] == [
        (0, (1.0, 1.0), (60, 60)),
        (1, (1.0, 1.0), (60, 60)),
    ]
    assert found[0].kl[0] / found[0].kl[1] == pytest.approx(0.5)
    target, by_measure = across_runs([*evidence.objectives, *evidence.ablations])
    assert target == 1.0
    assert by_measure["sae"].rho == pytest.approx(1)
    assert by_measure["random"].rho == pytest.approx(-1)
    assert by_measure["sae"].count == 11


def test_the_report_says_what_holds_and_what_does_not(evidence: Evidence, tmp_path: Path) -> None:
    path = tmp_path / "evidence.md"
    write_report(path, evidence, None)
    text = path.read_text()
    assert "Lower with FPO: KL in 2 and D in 2 of 2 seeds. This holds." in text
    assert "FPO / tdpo2: memory 0.26" in text  # (1.0 + 1.1) / (4.0 + 4.1)
    assert "politeness: -40 points, the others by at most 0: moves it alone." in text
    assert "language: +0 points, the others by at most 40: is no control of it alone." in text
    # 5 runs of 12 s and the reference's 3, against 5 of 9 s and the reference.
    assert "(63 s" not in text
    assert "1.31 times" in text
    assert text.count("Not measured.") == 8
