"""The constraint's share of the gradient: parts of one gradient, and α held to a share."""

import dataclasses
import json

import numpy as np
import pytest

from fpo_core.backend.base_policy import BasePolicy
from fpo_core.config import ObjectiveConfig, OptimiserConfig
from fpo_core.sae.hook import Hook
from fpo_core.sae.taps import Features
from fpo_core.train.constraint_share import SharePlan, adapted
from fpo_core.train.run_folder import LOG_FILE
from tests.backends.runs import (
    CrashError,
    crash_at,
    files_of,
    log_of,
    run_tiny,
    settings,
    train_on,
)
from tests.backends.support import HIDDEN, OBJECTIVE, UNTRAINED, reference_of, shaken
from tests.helpers import random_batch, random_pairs, random_sae

KL = ObjectiveConfig(objective="tdpo2", alpha=0.7, beta=0.3)


def parts_of(policy, objective, scale=0.05):
    """The norms of the whole gradient, and of its two parts."""
    batch = random_batch(4)
    reference = reference_of(policy, batch)
    policy.set_reference(policy.trained())
    policy.load_trained(shaken(policy.trained(), scale))
    policy.prepare_training(OptimiserConfig())

    def norm(weight, part):
        policy.accumulate(batch, reference, objective, weight, part)

    def total(*parts):
        for weight, part in parts:
            norm(weight, part)
        return policy.gradient_norm()

    return total


@pytest.mark.parametrize(
    "objective", [OBJECTIVE, KL, dataclasses.replace(OBJECTIVE, rpo_alpha=0.5)]
)
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_parts_make_up_the_gradient(backend, make_policy, kind, objective):
    """The whole less both parts is 0, and neither part is."""
    total = parts_of(make_policy(backend, fine_tune_type=kind), objective)
    whole = total((0.25, None))
    rest = total((0.25, None), (-0.25, "preference"), (-0.25, "constraint"))
    assert rest < 1e-4 * whole
    assert min(total((0.25, "preference")), total((0.25, "constraint"))) > 0.01 * whole
    assert total() == 0.0  # nothing of it is left


def test_backends_agree_on_the_parts(make_policy):
    norms = []
    for backend in ("torch", "mlx"):
        total = parts_of(make_policy(backend), OBJECTIVE)
        norms.append([total((0.25, "preference")), total((0.25, "constraint"))])
    np.testing.assert_allclose(*norms, rtol=1e-3)


def test_the_preference_is_that_of_the_loss_without_constraint_where_nothing_drifted(
    backend, make_policy
):
    """At the reference D is 0 and so is its gradient: the slope in u is that of α = 0."""
    policy = make_policy(backend)
    total = parts_of(policy, OBJECTIVE, scale=0.0)
    assert total((1, "constraint")) < 1e-5 * total((1, "preference"))


def plan(steps, validations, **changes):
    return SharePlan.of(1000, steps, validations, settings("m", "o", batch_size=4, **changes))


def test_measuring_takes_its_share_of_the_work():
    """Two gradients of 4 pairs are two steps' work: 2% of 1000 steps are ten measurements."""
    assert plan(1000, 10) == SharePlan(1, 4)
    assert plan(500, 10) == SharePlan(2, 4)
    assert plan(20, 10) == SharePlan(10, 4)  # once, at the end
    assert plan(20, 10, constraint_share=0.3) == SharePlan(1, 4)
    assert [left for left in range(10) if plan(500, 10).is_due(left)] == [0, 2, 4, 6, 8]
    assert not plan(1000, 10, alpha=0.0).is_due(0)
    assert not plan(1000, 10, objective="dpo", alpha=None).is_due(0)


@pytest.mark.parametrize(
    ("share", "alpha"),
    [(0.3, 5.0), (0.075, 10.0), (1.2, 2.5), (0.2, 5 * 1.5**0.5), (0.0, 5.0), (np.nan, 5.0)],
)
def test_alpha_goes_towards_the_share_slowly(share, alpha):
    """By the root of what is missing, at most twofold: 0.3 / 0.2 = 1.5, 0.3 / 0.075 = 4."""
    assert adapted(5.0, share, 0.3, start=5.0) == pytest.approx(alpha)
    assert adapted(499.0, 1e-9, 0.3, start=5.0) == 500.0  # a hundred times the first at most


def constraint_events(output):
    lines = (output / LOG_FILE).read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["kind"] == "constraint"]


def test_alpha_is_adapted_logged_and_goes_on_bit_for_bit(backend, tiny, tmp_path):
    options = {"backend": backend, "constraint_share": 0.3, "alpha": 0.01, "dropout": 0.2}
    options |= {"iters": 20, "steps_per_eval": 4, "normalize_d": True}
    whole = settings(tiny, tmp_path / "whole", **options)
    run_tiny(whole, tmp_path / "store")
    cut = settings(tiny, tmp_path / "cut", **options)
    with pytest.raises(CrashError):
        run_tiny(cut, tmp_path / "store", emit=crash_at("train", 14))
    run_tiny(dataclasses.replace(cut, resume=True), tmp_path / "store")
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")
    assert log_of(tmp_path / "cut") == log_of(tmp_path / "whole")
    events = constraint_events(tmp_path / "whole")
    assert [event["step"] for event in events] == [4, 8, 12, 16, 20]
    alphas = [event["fpo/alpha"] for event in events]
    assert alphas[0] == 0.01
    assert alphas == sorted(alphas)  # it began far too small
    assert alphas[-1] > 0.1
    assert events[-1]["fpo/constraint_share"] > 5 * events[0]["fpo/constraint_share"]


def test_a_pass_holds_no_more_pairs_than_one_of_training(tiny, tmp_path, monkeypatch):
    seen = []
    accumulate = BasePolicy.accumulate

    def watched(self, batch, *args, **options):
        seen.append((batch.pairs, args[-1]))
        return accumulate(self, batch, *args, **options)

    def share(batch_size, **changes):
        config = settings(tiny, tmp_path / f"{batch_size}", batch_size=batch_size, **changes)
        config = dataclasses.replace(config, backend="torch", iters=3)
        result, _ = run_tiny(config, tmp_path / "store")
        return result.state.constraint_share

    whole = share(8)
    monkeypatch.setattr(BasePolicy, "accumulate", watched)
    assert share(1, grad_accumulation_steps=8) == pytest.approx(whole, rel=1e-3)
    assert seen == [(1, "constraint")] * 8 + [(1, "preference")] * 8


def test_alpha_is_adapted_between_two_reports_without_held_out_pairs(tiny, tmp_path):
    """D at the report of step 1 is 0, which says nothing of the steps after it."""
    options = {"constraint_share": 0.3, "alpha": 0.01, "iters": 8, "steps_per_eval": 2}
    options |= {"backend": "torch"}
    tap = Features.of(random_sae(HIDDEN), Hook.parse("blocks.1.hook_resid_post"), UNTRAINED)
    alphas = []
    for every in (1, 100):
        config = settings(tiny, tmp_path / f"{every}", steps_per_report=every, **options)
        result, _ = train_on(config, random_pairs(9, seed=1), None, tap, tmp_path / "store")
        alphas.append(result.state.alpha)
    assert alphas == [pytest.approx(0.16), pytest.approx(0.16)]


def test_a_constraint_on_the_kl_has_no_floor_of_d(tiny, tmp_path):
    options = {"constraint_share": 0.3, "alpha": 0.01, "learning_rate": 1e-6}
    options |= {"backend": "torch"}
    options |= {"iters": 4, "steps_per_eval": 2, "objective": "tdpo2", "dtype": "bfloat16"}
    result, _ = run_tiny(settings(tiny, tmp_path / "run", **options), tmp_path / "store")
    assert [event["below_floor"] for event in constraint_events(tmp_path / "run")] == [False] * 2
    assert result.state.alpha == pytest.approx(0.04)


def test_a_preference_without_gradient_has_no_share(tiny, tmp_path):
    options = {"link": "hinge", "beta": 20.0, "alpha": 0.001, "backend": "torch"}
    result, _ = run_tiny(settings(tiny, tmp_path / "run", **options), tmp_path / "store")
    assert result.state.last["loss"] == 0
    assert constraint_events(tmp_path / "run") == []
    assert result.state.constraint_share is None


def test_an_alpha_that_is_allowed_to_change_replaces_the_adapted_one(tiny, tmp_path):
    options = {"constraint_share": 0.3, "alpha": 0.01, "iters": 8, "steps_per_eval": 2}
    options |= {"backend": "torch"}
    begun = settings(tiny, tmp_path / "run", **options, save_every=2)
    with pytest.raises(CrashError):
        run_tiny(begun, tmp_path / "store", emit=crash_at("train", 7))
    allowed = {"resume": True, "allow_change": ("alpha",)}
    run_tiny(dataclasses.replace(begun, alpha=5.0, **allowed), tmp_path / "store")
    alphas = [event["fpo/alpha"] for event in constraint_events(tmp_path / "run")]
    assert alphas == [0.01, 0.02, 0.04, 5.0]
