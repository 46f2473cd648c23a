"""What Metal demands of the MLX backend, shown without it: no float64, a step that compiles."""

import re
from pathlib import Path

import mlx.core as mx
import numpy as np

from fpo_core.config import OptimiserConfig
from fpo_core.loss.dense import ReferenceBatch
from fpo_mlx import ops
from tests.backends.support import OBJECTIVE, difference, gradients, reference_of, shaken
from tests.helpers import random_batch

PACKAGE = Path(ops.__file__).parent
WIDE = re.compile(r"float64|complex128|np\.double")
ALLOWED = {
    "ops.py": 2,  # as_float tells a wide array apart: a line of the docstring and one of code
}


def test_the_source_makes_no_wide_array():
    found = {
        file.name: len(lines)
        for file in PACKAGE.glob("*.py")
        if (lines := [line for line in file.read_text().splitlines() if WIDE.search(line)])
    }
    assert found == ALLOWED


def test_no_wide_array_is_made_in_a_step(make_policy, monkeypatch):
    seen = []
    original = mx.array

    class Watched:
        """Stands for mx.array where the backend calls it."""

        def __call__(self, value, *args):
            made = original(value, *args)
            seen.append(made.dtype)
            return made

        def __instancecheck__(self, value):
            return isinstance(value, original)

    policy = make_policy("mlx")
    batch = random_batch(2)
    reference = reference_of(policy, batch)
    wide = ReferenceBatch(*(np.asarray(a, np.float64) for a in vars(reference).values()))
    policy.prepare_training(OptimiserConfig())
    monkeypatch.setattr(ops.mx, "array", Watched())
    policy.accumulate(batch, wide, OBJECTIVE, 0.5)
    monkeypatch.undo()
    assert seen
    assert mx.float64 not in seen


def test_the_step_compiles(make_policy, monkeypatch):
    """Model, score and loss under `mx.compile` give the gradient that they give without it."""
    policy = make_policy("mlx")
    batch = random_batch(2)
    reference = reference_of(policy, batch)
    policy.load_trained(shaken(policy.trained()))
    plain = gradients(policy, [(batch, reference)])
    original, compiled = mx.value_and_grad, []

    def compiling(function):
        compiled.append(function)
        return mx.compile(original(function))

    monkeypatch.setattr(mx, "value_and_grad", compiling)
    found = gradients(policy, [(batch, reference)])
    assert len(compiled) == 1
    assert difference(found, plain) < 1e-5
