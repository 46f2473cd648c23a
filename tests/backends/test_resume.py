"""A run that was cut off goes on bit for bit; on the other backend, up to rounding."""

import dataclasses
import json
import os

import pytest

from fpo_core.errors import ConfigError
from fpo_core.sae.hook import Hook
from fpo_core.sae.taps import Features
from tests.backends.runs import (
    CrashError,
    crash_at,
    files_of,
    log_of,
    run_tiny,
    settings,
    train_on,
)
from tests.backends.support import HIDDEN, UNTRAINED
from tests.helpers import BACKENDS, pairs_of_prompts, random_sae

KINDS = {
    "lora": {"dropout": 0.2, "rank": 4},
    "full": {"fine_tune_type": "full", "num_layers": 2, "learning_rate": 1e-4},
    "dora": {"fine_tune_type": "dora", "optimizer": "adafactor", "learning_rate": 1e-2},
    "accumulated": {"dropout": 0.2, "batch_size": 1, "grad_accumulation_steps": 3},
    "checkpointed": {"dropout": 0.2, "grad_checkpoint": True, "iters": 12},
    "spo": {"degree_weight": 0.5, "dropout": 0.2, "iters": 12},
    # Step 21, the first after the checkpoint, is the first under a new V.
    "lozo": {"optimizer": "lozo-m", "zo_interval": 10, "learning_rate": 1e-2},
    "lozo, full": {
        "optimizer": "lozo-m",
        "zo_interval": 10,
        "fine_tune_type": "full",
        "learning_rate": 1e-4,
    },
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One reference store per backend for all runs of this file."""
    folder = tmp_path_factory.mktemp("stores")
    return lambda backend: folder / backend


@pytest.fixture
def world_run(world, store):
    """A run on the quickstart world, whose reference is torch's for every run."""
    folder, pairs, sae = world
    tap = Features.of(sae, sae.hook, tuple(range(7)))

    def run(output, emit=None, **changes):
        few = {"beta": 2.0, "alpha": 0.5, "k": 50, "steps_per_report": 1, "val_pairs": 4}
        config = settings(folder, output, **few, **changes)
        return train_on(config, pairs[:96], pairs[96:100], tap, store("world"), emit=emit)

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_bit_for_bit(backend, tiny, store, tmp_path, kind):
    options = {"backend": backend, **KINDS[kind]}
    whole = settings(tiny, tmp_path / "whole", **options)
    _, policy = run_tiny(whole, store(backend))
    cut = settings(tiny, tmp_path / "cut", **options)
    half = cut.iters // 2
    with pytest.raises(CrashError):
        run_tiny(cut, store(backend), emit=crash_at("train", half // 7 * 7 + 7))
    again = settings(tiny, tmp_path / "cut", **options, resume=True)
    _, resumed = run_tiny(again, store(backend))
    first, second = files_of(tmp_path / "whole"), files_of(tmp_path / "cut")
    assert len(first) >= 6
    assert first == second
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "cut")
    assert len(log_of(tmp_path / "cut")) > 10
    assert all((resumed.trained()[n] == w).all() for n, w in policy.trained().items())


def test_a_run_over_grouped_prompts_goes_on_bit_for_bit_and_is_the_same_on_both(tiny, tmp_path):
    tap = Features.of(random_sae(HIDDEN), Hook.parse("blocks.1.hook_resid_post"), UNTRAINED)
    pairs = pairs_of_prompts(5, 4)
    losses = {}

    def run(output, emit=None, **options):
        few = {"batch_size": 4, "iters": 8, "steps_per_report": 1, "group_prompts": True}
        config = settings(tiny, output, **few, **options)
        train_on(config, pairs, None, tap, tmp_path / "store", emit=emit)

    for backend in BACKENDS:
        whole, cut = tmp_path / backend / "whole", tmp_path / backend / "cut"
        run(whole, backend=backend)
        with pytest.raises(CrashError):
            run(cut, backend=backend, emit=crash_at("train", 7))
        run(cut, backend=backend, resume=True)
        assert files_of(whole) == files_of(cut)
        assert log_of(whole) == log_of(cut)
        losses[backend] = [row["loss"] for row in log_of(whole) if "loss" in row]
    assert losses["mlx"] == pytest.approx(losses["torch"], rel=1e-4)


@pytest.mark.parametrize("source", BACKENDS)
@pytest.mark.parametrize("change", [{"dropout": 0.2}, {"dtype": "bfloat16"}])
def test_another_backend_is_refused_where_the_numbers_would_differ(tiny, tmp_path, source, change):
    """Dropout draws otherwise on it; another precision computes otherwise anywhere."""
    store = tmp_path / "store"  # its own, which may be in bfloat16
    few = {"iters": 4, "save_every": 2, "step0_pairs": 0}
    first = settings(tiny, tmp_path / "run", backend=source, **few, **change)
    with pytest.raises(CrashError):
        run_tiny(first, store, emit=crash_at("checkpoint", 2))
    other = BACKENDS[1 - BACKENDS.index(source)]
    moved = {"backend": other} if "dropout" in change else {"dtype": "float32"}
    again = dataclasses.replace(first, resume=True, **moved)
    before = files_of(tmp_path), log_of(tmp_path / "run")
    key = next(iter(moved))
    was = source if key == "backend" else "bfloat16"
    with pytest.raises(ConfigError, match=rf"\({key} was {was}, is {moved[key]}\)"):
        run_tiny(again, store)
    assert (files_of(tmp_path), log_of(tmp_path / "run")) == before
    allowed = dataclasses.replace(again, allow_change=(key,))
    assert run_tiny(allowed, store)[0].state.step == 4


def test_a_run_that_stops_early_does_so_at_the_same_step_after_a_crash(
    backend, tiny, store, tmp_path
):
    """Of four pairs' accuracy there are nine values, so twenty validations cannot all be better."""
    early = {"early_stopping": 1, "best_metric": "rewards/accuracies", "steps_per_eval": 2}
    options = {"backend": backend, "save_every": 1} | early
    result, _ = run_tiny(settings(tiny, tmp_path / "whole", **options), store(backend))
    assert 2 < result.state.step < 40
    cut = settings(tiny, tmp_path / "cut", **options)
    with pytest.raises(CrashError):
        run_tiny(cut, store(backend), emit=crash_at("eval", result.state.step))
    again = dataclasses.replace(cut, resume=True)
    assert run_tiny(again, store(backend))[0].early_end == result.early_end
    assert files_of(tmp_path / "whole") == files_of(tmp_path / "cut")
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "cut")


STEPS = 40
LEARNING_RATE = {"lora": 1e-3, "full": 2e-4}
"""As in test_parity: far above, rounding decides which features fire, and steps diverge."""


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_run_begun_on_one_backend_goes_on_on_the_other(world_run, kind, tmp_path):
    """Bar: 20 steps there and 20 here lose what 40 here lose, within 1e-4."""
    options = {"fine_tune_type": kind, "learning_rate": LEARNING_RATE[kind], "iters": STEPS}
    losses = {}
    for backend in BACKENDS:
        other = BACKENDS[1 - BACKENDS.index(backend)]
        world_run(tmp_path / backend, backend=backend, **options)
        half = tmp_path / f"{other}-{backend}"
        with pytest.raises(CrashError):
            world_run(half, crash_at("checkpoint", STEPS // 2), backend=other, **options)
        world_run(half, backend=backend, resume=True, **options)
        losses[backend] = [train_losses(folder) for folder in (tmp_path / backend, half)]
    for backend, (whole, halves) in losses.items():
        assert len(whole) == len(halves) == STEPS
        assert max(whole) - min(whole) > 1e-2, "nothing moved: the comparison would be empty"
        apart = max(abs(b / a - 1) for a, b in zip(whole, halves, strict=True))
        if "FPO_SHOW" in os.environ:
            print(f"{kind}, ending on {backend}: losses {apart:.1e} apart")
        assert apart < 1e-4, (backend, apart)


def train_losses(folder):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["kind"] == "train"]
