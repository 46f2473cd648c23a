"""A training step waits for its device once, whatever it trains and however many batches it has."""

import warnings

import pytest
import torch

from fpo_core.backend.policy import SeededBatch
from fpo_core.config import OptimiserConfig
from tests.backends.host_reads import HostReads
from tests.backends.runs import run_tiny, settings
from tests.backends.support import OBJECTIVE, reference_of
from tests.helpers import random_batch

KINDS = {
    "lora": {},
    "full": {"fine_tune_type": "full", "grad_checkpoint": True},
    "accumulated": {"batch_size": 1, "grad_accumulation_steps": 3, "dropout": 0.2},
    "adafactor": {"optimizer": "adafactor"},
    "every feature": {"stop_gradient": False, "straight_through": True},
    "KL": {"objective": "tdpo2"},
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return tmp_path_factory.mktemp("stores")


@pytest.mark.parametrize("kind", KINDS)
def test_the_host_reads_once_a_step(backend, tiny, tmp_path, stores, monkeypatch, kind):
    rare = {"iters": 5, "steps_per_eval": 99, "save_every": 99, "steps_per_report": 1}
    config = settings(tiny, tmp_path / "run", backend=backend, **rare, **KINDS[kind])
    reads = HostReads(backend, monkeypatch)
    steps = []

    def emit(event):
        if event.kind == "train":
            steps.append(reads.taken())

    run_tiny(config, stores / backend, emit=emit)
    # The first follows a validation, the last is followed by one.
    counts = [len(step) for step in steps[1:4]]
    if (backend, kind) == ("torch", "adafactor"):  # torch's own reads two numbers of each weight
        assert min(counts) > 1
    else:
        assert counts == [1, 1, 1], steps[1:4]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_is_waited_for_once_a_step(make_policy):
    """By CUDA's own word, which hears of copies too."""
    policy, batch = make_policy("torch", device="cuda"), random_batch(3)
    reference = reference_of(policy, batch)
    policy.prepare_training(OptimiserConfig())

    def step():
        policy.accumulate_all([SeededBatch(0, batch, reference)], OBJECTIVE, 1 / batch.pairs)
        policy.apply_gradients(1e-3, 1.0)

    step()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(warning.message) for warning in heard if "synchroniz" in str(warning.message)]
    assert len(waits) == 1, waits


def test_reads_are_counted(backend, make_policy, monkeypatch):
    policy = make_policy(backend)
    reads = HostReads(backend, monkeypatch)
    policy.trained()
    assert len(reads.taken()) >= len(policy.trained())
