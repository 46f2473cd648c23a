"""Layers that a packed step fuses are recognised; that they are right is in `test_packed_step`."""

import functools
from collections import Counter

import pytest

import fpo_mlx.kernels.mlp
import fpo_torch.kernels.elementwise
import fpo_torch.kernels.lora
import fpo_torch.kernels.mlp
from fpo_core.config import StepConfig
from tests.backends.families import write_family
from tests.helpers import random_batch

LINEAR, BLOCKS = 7, 2


@pytest.fixture
def calls(monkeypatch):
    """How often each kind of fused layer was called."""
    found = Counter()

    def counted(name, function):
        @functools.wraps(function)
        def call(*args):
            found[name] += 1
            return function(*args)

        return call

    def makes_counted(name, make):
        return lambda *args: counted(name, make(*args))

    gates = tuple(counted("mlp", gate) for gate in fpo_mlx.kernels.mlp._GATES)
    monkeypatch.setattr(fpo_mlx.kernels.mlp, "_GATES", gates)
    for name, module, make in (
        ("lora", fpo_torch.kernels.lora, "_forward"),
        ("mlp", fpo_torch.kernels.mlp, "_forward"),
        ("norm", fpo_torch.kernels.elementwise, "_norm_forward"),
        ("rotary", fpo_torch.kernels.elementwise, "_rotary_forward"),
    ):
        monkeypatch.setattr(module, make, makes_counted(name, getattr(module, make)))
    return found


@pytest.mark.parametrize("name", ["llama", "gemma2"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_layers_are_found(backend, make_policy, calls, tmp_path, name, dropout):
    folder = write_family(name, tmp_path / name, num_hidden_layers=BLOCKS)
    policy = make_policy(backend, folder=folder, dropout=dropout)
    calls.clear()
    policy.score(random_batch(3))
    assert calls["mlp"] >= BLOCKS
    assert calls["lora"] == (LINEAR * calls["mlp"] if backend == "torch" else 0)
    assert (calls["norm"] > 0) == (calls["rotary"] > 0) == (backend == "torch")


def test_the_plain_step_has_the_librarys_layers(backend, make_policy, calls):
    policy = make_policy(backend, step=StepConfig(plain=True))
    policy.score(random_batch(3))
    assert not calls
