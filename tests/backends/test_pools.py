"""Pools of online runs: whose samples, whose labels, whose reference; and runs that go on."""

import dataclasses

import numpy as np
import pytest

from fpo_core.arrays import numpy_ops
from fpo_core.config import ObjectiveConfig
from fpo_core.errors import ConfigError, TrainingError
from fpo_core.events import silent
from fpo_core.judges.judge import FunctionJudge
from fpo_core.loss.objectives import objective_terms
from fpo_core.reference.build import extend_store, store_key
from fpo_core.sae.hook import Hook
from fpo_core.sae.taps import Features
from fpo_core.train.online import Drawer
from fpo_core.train.paired_data import RunData
from fpo_core.train.pool import Pool
from fpo_core.train.schedule import RowPlan
from tests.backends.runs import (
    LONGER,
    CrashError,
    crash_at,
    files_of,
    log_of,
    run_tiny,
    settings,
    source,
)
from tests.backends.support import HIDDEN, UNTRAINED, shaken
from tests.helpers import random_pairs, random_sae

ONLINE = {"online_every": 5, "online_tokens": 12, "iters": 12, "save_every": 1}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    return lambda backend: folder / backend


def drawer_of(make_policy, backend, tmp_path, judge=LONGER, **changes):
    """A drawer over a policy that has moved away from its reference."""
    policy = make_policy(backend)
    tap = Features.of(random_sae(HIDDEN), Hook.parse("blocks.1.hook_resid_post"), UNTRAINED)
    pairs = random_pairs(11, seed=1)
    config = settings(tmp_path, tmp_path / "run", **(ONLINE | {"backend": backend} | changes))
    opened = extend_store(
        tmp_path / "store", store_key("m", None, tap), policy, [pairs], config, silent
    )
    data = RunData(pairs, None, opened, sum(tap.widths))
    policy.set_reference(policy.trained())
    policy.load_trained(shaken(policy.trained(), 0.3))
    plan = RowPlan.of(pairs, config)
    return Drawer(policy, data, config, plan, source(judge), silent)


def test_a_fresh_pair_carries_its_own_prompt_label_and_reference(backend, make_policy, tmp_path):
    drawer = drawer_of(make_policy, backend, tmp_path, online="plain", batch_size=4)
    data, plan = drawer.data, drawer.plan
    pool = drawer.draw(6)
    assert {*pool.steps} <= {6, 7, 8, 9, 10}
    assert len(pool.pairs) > 8
    judge = drawer.source
    for i, pair in enumerate(pool.pairs):
        row = np.concatenate(plan.batches(int(pool.steps[i])))[pool.places[i]]
        assert pair.prompt.tolist() == data.train[int(row)].prompt.tolist()
        chosen, rejected = (len(judge.text(ids)) for ids in (pair.chosen, pair.rejected))
        assert chosen > rejected
    # The reference is the start's, with its features; the policy says something else.
    rows = len(data.train) + np.arange(len(pool.pairs))
    batch, reference = pool.batch(data, rows)
    moved = drawer.policy.score(batch)
    drawer.policy.load_trained(make_policy(backend).trained())
    start = drawer.policy.score(batch)
    np.testing.assert_allclose(reference.logps, start.logps, atol=1e-3)
    assert start.pooled is not None
    np.testing.assert_allclose(np.asarray(reference.pooled), start.pooled, atol=1e-4)
    assert np.abs(moved.logps - start.logps).max() > 0.1
    np.testing.assert_allclose(pool.reference_logps(data, rows), reference.logps)


def test_samples_are_the_policys_and_new_in_each_pool(make_policy, tmp_path):
    drawer = drawer_of(make_policy, "torch", tmp_path, online="plain", online_every=6)
    first, again, later = drawer.draw(1), drawer.draw(1), drawer.draw(7)
    texts = [[(*p.chosen, -1, *p.rejected) for p in pool.pairs] for pool in (first, again, later)]
    assert texts[0] == texts[1]
    assert not {*texts[0]} & {*texts[2]}


def test_mixed_rows_keep_the_pairs_of_the_data(make_policy, tmp_path):
    drawer = drawer_of(make_policy, "torch", tmp_path, online="dpr", online_share=0.5, batch_size=4)
    data, pool = drawer.data, drawer.draw(1)
    rows = np.concatenate(drawer.plan.batches(2))
    mixed = pool.rows(2, rows, len(data.train))
    fresh = mixed >= len(data.train)
    assert 0 < fresh.sum() == (pool.steps == 2).sum() < len(rows)
    assert (mixed[~fresh] == rows[~fresh]).all()
    batch, reference = pool.batch(data, mixed)
    old, stored = data.batch(data.train, rows[~fresh])
    both = np.concatenate([~fresh, ~fresh])
    np.testing.assert_array_equal(reference.logps[both], stored.logps)
    np.testing.assert_array_equal(np.asarray(reference.pooled)[both], stored.pooled)
    np.testing.assert_array_equal(batch.lengths[both], old.lengths)
    sizes = data.train.num_tokens(rows[~fresh]) + pool.pairs.num_tokens(
        np.flatnonzero(pool.steps == 2)
    )
    assert pool.num_tokens(data, mixed) == sizes == batch.num_tokens


@pytest.mark.parametrize("route", ["ddp", "dpp"])
def test_own_labels_follow_the_policys_own_preference(make_policy, tmp_path, route):
    """At a huge β, σ(u) is 0 or 1: whatever the data says, u of every labelled pair is above 0."""
    sharp = {
        "online": route,
        "online_share": 1.0,
        "objective": "dpo",
        "beta": 1e4,
        "alpha": None,
        "batch_size": 4,
    }
    drawer = drawer_of(make_policy, "torch", tmp_path, **sharp)
    pool = drawer.draw(1)
    batch, reference = pool.batch(drawer.data, len(drawer.data.train) + np.arange(len(pool.pairs)))
    u = objective_terms(numpy_ops, drawer.policy.score(batch), reference.logps, drawer.config)
    assert len(pool.pairs) > 6
    assert (u.logits() > 0).all()
    if route == "ddp":
        rows = [
            np.concatenate(drawer.plan.batches(int(s)))[p]
            for s, p in zip(pool.steps, pool.places, strict=True)
        ]
        of_data = [drawer.data.train[int(row)] for row in rows]
        flipped = [
            p.chosen.tolist() == q.rejected.tolist()
            for p, q in zip(pool.pairs, of_data, strict=True)
        ]
        assert 0 < sum(flipped) < len(flipped)
        stored = drawer.data.store.batch([p.key for p in of_data], None).logps
        sides = np.where(flipped, stored[len(rows) :], stored[: len(rows)])
        np.testing.assert_allclose(reference.logps[: len(rows)], sides, atol=1e-3)


def test_ties_and_missing_verdicts_keep_the_pair_of_the_data(make_policy, tmp_path):
    events = []
    judge = FunctionJudge(lambda prompt, text: min(len(text), 20), "cut")
    drawer = drawer_of(make_policy, "torch", tmp_path, judge, online="plain", batch_size=4)
    drawer.emit = events.append
    pool = drawer.draw(1)
    said = next(event.values for event in events if event.kind == "pool")
    assert said["wanted"] == 19, "of eleven pairs, by fours"
    assert said["tied"] > 0
    assert said["pairs"] == len(pool.pairs) == 19 - said["tied"] - said["no_verdict"]


def test_a_pool_comes_back_from_its_file(make_policy, tmp_path):
    drawer = drawer_of(make_policy, "torch", tmp_path, online="plain")
    pool = drawer.draw(1)
    back = Pool.from_arrays(pool.to_arrays(), drawer.data.d_sae)
    assert back.pairs.keys() == pool.pairs.keys()
    for name in ("logps", "pooled", "truncated"):
        np.testing.assert_array_equal(getattr(back.reference, name), getattr(pool.reference, name))
    np.testing.assert_array_equal(back.steps, pool.steps)
    np.testing.assert_array_equal(back.places, pool.places)


@pytest.mark.parametrize("route", ["dpr"])
def test_share_0_is_an_offline_run_bit_for_bit(backend, tiny, store, tmp_path, route):
    options = {"backend": backend, "iters": 6, "save_every": 3}
    run_tiny(settings(tiny, tmp_path / "offline", **options), store(backend))
    online = {"online": route, "online_share": 0.0}
    run_tiny(settings(tiny, tmp_path / "online", **options, **online), store(backend))
    files = files_of(tmp_path / "online")
    assert files == files_of(tmp_path / "offline")
    assert len(files) >= 4
    assert [e for e in log_of(tmp_path / "online") if e["kind"] != "pool"] == log_of(
        tmp_path / "offline"
    )


RESUMED = [("torch", "ddp"), ("torch", "dpp"), ("torch", "dpr"), ("mlx", "dpr")]


@pytest.mark.parametrize(("backend", "route"), RESUMED)
def test_a_run_goes_on_bit_for_bit(backend, tiny, store, tmp_path, route):
    """Ended within a pool, whose pairs are in the checkpoint, and again where one begins."""
    options = {"backend": backend, "online": route, **ONLINE}
    run_tiny(settings(tiny, tmp_path / "whole", **options), store(backend))
    cut = settings(tiny, tmp_path / "cut", **options)
    with pytest.raises(CrashError):
        run_tiny(cut, store(backend), emit=crash_at("checkpoint", 8))
    assert (tmp_path / "cut" / "checkpoints" / "step-00000008" / "pool.safetensors").is_file()
    again = dataclasses.replace(cut, resume=True)
    with pytest.raises(CrashError):
        run_tiny(again, store(backend), emit=crash_at("pool", 11))
    assert not [*(tmp_path / "cut" / "checkpoints" / "step-00000010").glob("pool*")]
    run_tiny(again, store(backend))
    files = files_of(tmp_path / "whole")
    assert files == files_of(tmp_path / "cut")
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "cut")
    assert any(line["kind"] == "pool" and line["pairs"] for line in log_of(tmp_path / "cut"))


def test_a_pool_that_was_changed_is_damage(tiny, store, tmp_path):
    options = {"backend": "torch", "online": "plain", **ONLINE, "save_total_limit": 1}
    cut = settings(tiny, tmp_path / "cut", **options)
    with pytest.raises(CrashError):
        run_tiny(cut, store("torch"), emit=crash_at("checkpoint", 3))
    for path in (tmp_path / "cut" / "checkpoints").rglob("pool.safetensors"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    with pytest.raises(TrainingError, match="no checkpoint to go on from"):
        run_tiny(dataclasses.replace(cut, resume=True), store("torch"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"online_share": 0.5}, "online_share is set while online is not"),
        ({"online": "plain", "online_weight": 0.5}, "online plain has no terms of SAIL"),
        ({"online": "ddp", "degree_weight": 0.1}, "no words removed"),
        ({"online": "ddp", "judge": "oracle"}, "online is ddp, which asks nobody"),
        ({"judge": "oracle"}, "online is not, which asks nobody"),
        ({"online": "dpr", "link": "hinge"}, "link is hinge, but SAIL's terms of online dpr"),
        ({"online": "dpp", "optimizer": "mezo"}, "optimizer is mezo, but SAIL's terms"),
        ({"online": "dpr", "label_smoothing": 0.1}, "label_smoothing is set, but SAIL's"),
        ({"online": "sail"}, "online is 'sail', expected one of"),
    ],
)
def test_settings_that_mean_nothing_together_are_refused(tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        settings(tmp_path, tmp_path, **changes)
    assert ObjectiveConfig(objective="dpo").link_name == "logistic"
