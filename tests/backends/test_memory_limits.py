"""Limits on MLX's memory hold while a policy lives, and those of before after it."""

import gc

import mlx.core as mx
import pytest

from fpo_core.config import StepConfig
from fpo_core.errors import BackendError
from fpo_mlx import device


class Owner:
    """Whoever asked for a limit."""


class FakeMetal:
    """Stands for mlx.core where Metal exists."""

    gpu = "gpu"

    def __init__(self):
        self.wired, self.metal = 7, self

    def is_available(self):
        return True

    def device_info(self, device):
        assert device == self.gpu
        return {"max_recommended_working_set_size": 1000}

    def set_wired_limit(self, size):
        before, self.wired = self.wired, size
        return before


def test_memory_is_wired_on_metal_alone(monkeypatch):
    fake, owner = FakeMetal(), Owner()
    monkeypatch.setattr(device, "mx", fake)
    device.wire_memory(owner, "gpu")
    assert fake.wired == 1000
    del owner
    gc.collect()
    assert fake.wired == 7
    device.wire_memory(fake, "cpu")
    monkeypatch.setattr(fake, "is_available", lambda: False)
    device.wire_memory(fake, "gpu")
    assert fake.wired == 7


def test_a_cache_limit_holds_while_its_policy_lives(make_policy):
    before = mx.set_cache_limit(2**30)
    try:
        owner = Owner()
        device.limit_cache(owner, 3)
        assert mx.set_cache_limit(3 * 2**20) == 3 * 2**20
        del owner
        gc.collect()
        assert mx.set_cache_limit(2**30) == 2**30
        policy = make_policy("mlx", step=StepConfig(cache_limit=5))
        assert mx.set_cache_limit(5 * 2**20) == 5 * 2**20
        del policy
    finally:
        gc.collect()
        mx.set_cache_limit(before)


def test_torch_has_no_such_limit(make_policy):
    with pytest.raises(BackendError, match="cache_limit is 5"):
        make_policy("torch", step=StepConfig(cache_limit=5))


def test_the_log_says_what_memory_holds(make_policy):
    assert make_policy("torch").memory_in_use() == {}  # on a CPU
    policy = make_policy("mlx")
    before = policy.memory_in_use()
    held = mx.zeros(2**20)
    mx.eval(held)
    assert policy.memory_in_use()["active_memory"] >= before["active_memory"] + 2**22
    del held
    assert policy.memory_in_use()["cache_memory"] >= 2**22


def test_compiling_is_refused_where_it_gains_nothing(backend, make_policy):
    with pytest.raises(BackendError, match="compile is set"):
        make_policy(backend, step=StepConfig(compile=True))
