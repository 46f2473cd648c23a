"""Drift that is told while a run goes on, and bounds that end it."""

import dataclasses
import json

import numpy as np
import pytest

from fpo_core.errors import ConfigError, TrainingError
from fpo_core.train.drift_watch import DriftWatch
from tests.backends.runs import CrashError, crash_at, files_of, run_tiny, settings
from tests.helpers import BACKENDS

FAST = {"learning_rate": 1e-2, "iters": 40, "steps_per_eval": 10, "save_total_limit": 9}
BOUNDS = {"max_kl": "eval_fpo/kl_per_token", "max_perplexity": "eval_perplexity"}


def size(policy):
    """Stands for the perplexity of texts: grows as the weights leave their start."""
    return 10 + sum(float(np.abs(w).sum()) for n, w in policy.trained().items() if "lora_B" in n)


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture(scope="module")
def run(backend, tiny, tmp_path_factory):
    """A short run with a large rate, which drifts."""
    folder = tmp_path_factory.mktemp(f"drift-{backend}")

    def run(name, *, resume=False, emit=None, **changes):
        config = settings(tiny, folder / name, backend=backend, **(FAST | changes))
        config = dataclasses.replace(config, resume=resume)
        store = folder / "reference"
        result, _ = run_tiny(config, store, perplexity=size, emit=emit)
        return result, folder / name

    return run


@pytest.fixture(scope="module")
def unbounded(run):
    """A run whose bounds are far away, and its measurements at each validation."""
    _, folder = run("unbounded", max_kl=1e9, max_perplexity=1e9)
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return folder, [event for event in events if event["kind"] == "eval"]


def between(unbounded, bound):
    """A bound that step 20 keeps and step 30 does not."""
    values = [event[BOUNDS[bound]] for event in unbounded[1]]
    if bound == "max_perplexity":
        values = [value / values[0] for value in values]
    assert values == sorted(values)
    return (values[2] + values[3]) / 2


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_run_ends_with_the_last_weights_within(run, unbounded, bound):
    result, folder = run(bound, **{bound: between(unbounded, bound), "save_every": 7})
    assert (result.state.step, result.steps) == (20, 40)
    assert f"after step 20 of 40: at step 30 {'KL' if 'kl' in bound else 'perplexity'}" in (
        result.early_end
    )
    trained = (unbounded[0] / "checkpoints/step-00000020/trained.safetensors").read_bytes()
    saved = files_of(folder)
    assert saved["checkpoints/step-00000020/trained.safetensors"] == trained
    assert not (folder / "checkpoints/step-00000030").exists()


def test_the_result_is_that_of_the_step(run, unbounded):
    bound = between(unbounded, "max_kl")
    _, folder = run("result", max_kl=bound)
    _, cut = run("cut", max_kl=bound, save_total_limit=1)
    for name in ("adapter_model.safetensors", "adapters.safetensors"):
        assert (folder / name).read_bytes() == (cut / name).read_bytes()
        assert (folder / name).read_bytes() != (unbounded[0] / name).read_bytes()


def test_a_crash_on_the_way_changes_nothing(run, unbounded):
    bound = {"max_kl": between(unbounded, "max_kl"), "save_total_limit": 1}
    _, whole = run("whole", **bound)
    with pytest.raises(CrashError):
        run("crashed", emit=crash_at("train", 28), **bound)
    result, resumed = run("crashed", resume=True, **bound)
    assert result.state.step == 20
    assert files_of(resumed) == files_of(whole)


def test_a_start_that_is_beyond_is_an_error(run):
    with pytest.raises(TrainingError, match=r"at step 10 KL .* above 1e-09, and no earlier"):
        run("beyond", max_kl=1e-9)


def test_far_drift_is_told_once(run):
    told = []
    run("told", emit=told.append)
    warnings = [e for e in told if e.kind == "warning" and "drifts far" in e.values["message"]]
    assert len(warnings) == 1
    assert 0 < warnings[0].step < 40


def test_a_bound_needs_what_it_bounds(run, tiny, tmp_path):
    config = settings(tiny, tmp_path, max_kl=1.0)
    with pytest.raises(ConfigError, match=r"max_kl is 1, but no pairs are held out"):
        DriftWatch(config).check(None)
    with pytest.raises(ConfigError, match=r"max_perplexity is 1.0, expected more than 1.0"):
        settings(tiny, tmp_path, max_perplexity=1.0)


def test_no_number_is_beyond(tiny, tmp_path):
    watch = DriftWatch(settings(tiny, tmp_path, max_perplexity=1.1), size)
    start = {"eval_perplexity": 10.0}
    assert watch.beyond({"eval_perplexity": float("nan")}, start) is not None
    assert watch.beyond({"eval_perplexity": 10.9}, start) is None
    assert watch.beyond({"eval_perplexity": 10.9}, {}) is None
