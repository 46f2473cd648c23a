"""The largest batch before step 1: what is estimated, and what is refused."""

import contextlib
import shutil
import time
from collections import namedtuple
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from fpo_core.data.token_store import TokenisedPairs
from fpo_core.errors import TrainingError
from fpo_core.train.preflight import Preflight, preflight, relief
from tests.core.pretend import PretendPolicy, config

LENGTHS = (10, 20, 40, 120, 20, 10)
PAIRS = TokenisedPairs.from_lists(
    [([1, 2], [3] * (n - 2), [4] * 3) for n in LENGTHS for _ in range(2)]
)


class Watched(PretendPolicy):
    """Notes the shapes that it sees; some calls fail."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.trained_on: list[tuple[int, int]] = []

    def accumulate(self, batch, reference, objective, weight):
        if self.error is not None:
            raise self.error
        self.trained_on.append((batch.pairs, batch.width))
        return super().accumulate(batch, reference, objective, weight)

    def memory_limit(self) -> int | None:
        return 100


def foretell(policy, tmp_path: Path, **changes) -> Preflight:
    settings = config(tmp_path / "run", **changes)
    return preflight(policy, PAIRS, None, settings, missing=len(PAIRS))  # pyright: ignore


def test_the_largest_and_a_middle_batch_are_tried(tmp_path):
    policy = Watched()
    found = foretell(policy, tmp_path, iters=12, step0_pairs=0)
    assert policy.trained_on == [(2, 128)] * 2 + [(2, 32)] * 2
    assert (found.pairs, found.width, found.steps) == (2, 128, 12)
    assert found.fits
    assert found.peak_memory == 1
    assert found.train_seconds == pytest.approx(12 * found.seconds_per_step)
    assert policy.rates == [0.0]
    assert not (tmp_path / "run").exists()


def test_another_sampler_takes_its_share_and_is_not_tried(tmp_path):
    online = {"online": "dpp", "sampler": "vllm", "vllm_memory": 0.3}
    found = foretell(Watched(), tmp_path, iters=2, step0_pairs=0, **online)
    assert found.memory_limit == 70


class Perturbed(Watched):
    """Notes the moves of its weights, which are all it trains by."""

    def __init__(self) -> None:
        super().__init__()
        self.signs: list[float] = []

    @contextlib.contextmanager
    def perturbed(self, sign: float):
        self.signs.append(sign)
        yield

    def apply_slope(self, slope: float, learning_rate: float, max_norm: float) -> float:
        self.rates.append(learning_rate)
        return slope


def test_a_run_without_gradients_is_tried_without_moving_a_weight(tmp_path):
    policy = Perturbed()
    found = foretell(policy, tmp_path, iters=12, step0_pairs=0, optimizer="lozo")
    assert policy.trained_on == []
    assert policy.signs == [0.0] * 8  # both sides of two batches, tried twice
    assert policy.rates == [0.0]
    by_gradient = foretell(Watched(), tmp_path, iters=12, step0_pairs=0)
    assert found.disk_bytes < by_gradient.disk_bytes
    lozo = config(tmp_path / "run", optimizer="lozo", batch_size=4)
    assert relief(lozo).startswith("lower batch_size below 4")


def test_checks_and_validations_count_in_the_estimate(tmp_path, monkeypatch):
    """Every timed call takes a second; pairs of 10 tokens, prompts on both sides: 14 of them."""
    monkeypatch.setattr(time, "perf_counter", count().__next__)
    pairs = TokenisedPairs.from_lists([([1, 2], [3] * 7, [4] * 3)] * 8)
    settings = config(tmp_path / "run", iters=12, steps_per_eval=5, step0_pairs=4, val_pairs=6)
    found = preflight(Watched(), pairs, pairs, settings, missing=10)  # pyright: ignore
    batch = 8 * 14  # all pairs fit one scoring batch
    assert found.reference_seconds == pytest.approx(10 * 14 / batch)
    judged = 4 * 14 + 6 * 14 * len(["step 0", "step 5", "step 10", "step 12"])
    assert found.train_seconds == pytest.approx(12 * found.seconds_per_step)
    assert found.validation_seconds == pytest.approx(judged / batch)
    measured = 3 * 6 * 14  # once at the start, and at the end under both policies
    assert found.measuring_seconds == pytest.approx(measured / batch)
    scored = 10 * 14 + judged + measured
    assert found.seconds == pytest.approx(found.train_seconds + scored / batch)


def test_a_device_that_is_nearly_full_does_not_fit(tmp_path):
    policy = Watched()
    policy.memory_limit = lambda: 1  # pyright: ignore
    assert not foretell(policy, tmp_path).fits


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")]
)
def test_running_out_of_memory_names_the_setting_to_change(tmp_path, error):
    with pytest.raises(TrainingError, match=r"largest batch of 2 pairs.*grad_checkpoint"):
        foretell(Watched(error), tmp_path)


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="shapes do not match"):
        foretell(Watched(RuntimeError("shapes do not match")), tmp_path)


def test_a_disk_that_is_too_small_is_refused(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 10))
    with pytest.raises(TrainingError, match="0 MiB are free"):
        foretell(Watched(), tmp_path)


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({}, "set grad_checkpoint"),
        ({"grad_checkpoint": True}, "batch_size below 2"),
        ({"grad_checkpoint": True, "batch_size": 1}, "max_seq_length below 1024"),
    ],
)
def test_the_cheapest_relief_comes_first(tmp_path, changes, option):
    assert option in relief(config(tmp_path, **changes))


def test_seconds_per_step_lie_on_the_line_between_the_timed_batches(tmp_path):
    from fpo_core.train.preflight import _Shapes
    from fpo_core.train.schedule import RowPlan

    settings = config(tmp_path, iters=6)
    shapes = _Shapes(PAIRS.lengths(), RowPlan.of(PAIRS, settings))
    # One epoch of six batches: widths 32 ×4, 64 and 128; 4 s at 32 tokens, 10 s at 128.
    expected = np.mean([4.0] * 4 + [4.0 + 6.0 / 96 * 32, 10.0])
    assert shapes.step_seconds(10.0, 4.0) == pytest.approx(expected)


class Sampling(Watched):
    """Notes what it is asked to sample, and takes a second for it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, int, int]] = []

    def generate(self, prompts, sampling, on_tokens=None, numbers=None):
        time.sleep(0.2)
        self.asked.append((len(prompts), max(map(len, prompts)), sampling.max_tokens))
        return [np.full(sampling.max_tokens, 3, np.int32) for _ in prompts]


def test_an_online_run_tries_a_batch_of_samples_to_the_last_token(tmp_path):
    """Pools of 8 steps need 8 · 2 · 2 samples, of which 128 tokens hold 128 // (2 + 14) = 8."""
    policy = Sampling()
    online = {"online": "plain", "judge": "oracle", "online_tokens": 14, "tokens_per_batch": 128}
    found = foretell(policy, tmp_path, iters=12, step0_pairs=0, **online)
    assert policy.asked == [(8, 2, 14)]
    samples = 12 * 2 * 2
    assert found.sampling_seconds == pytest.approx(samples * 0.2 / 8, rel=0.3)
    assert found.seconds > found.sampling_seconds
    few = foretell(policy, tmp_path, iters=12, step0_pairs=0, **(online | {"online_every": 1}))
    assert policy.asked[1] == (4, 2, 14)
    assert few.sampling_seconds > 1.5 * found.sampling_seconds


def test_pairs_of_the_data_are_not_sampled(tmp_path):
    """Labels of the policy's own on the data's pairs cost their reference scores."""
    policy = Sampling()
    found = foretell(policy, tmp_path, iters=12, step0_pairs=0, online="ddp")
    assert not policy.asked
    assert 0 < found.sampling_seconds < 0.1
    assert foretell(policy, tmp_path, iters=12, step0_pairs=0).sampling_seconds == 0
