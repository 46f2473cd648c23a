"""What Metal demands of the MLX backend, shown without it: no float64, a step that compiles."""

import ast
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from fpo_core.config import OptimiserConfig
from fpo_core.loss.dense import ReferenceBatch
from fpo_mlx import ops
from tests.backends.support import OBJECTIVE, difference, gradients, reference_of, shaken
from tests.helpers import random_batch

PACKAGE = Path(ops.__file__).parent
WIDE = {"float64", "double", "complex128"}


def wide_dtypes(source):
    """Functions of a module, None for its top level, whose code names a dtype that Metal lacks."""
    tree = ast.parse(source)
    scopes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    owner = {id(inner): scope.name for scope in scopes for inner in ast.walk(scope)}
    return {
        owner.get(id(node))
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in WIDE)
        or (isinstance(node, ast.Constant) and node.value in WIDE)
    }


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(x):\n    return x.astype(mx.float64)", {"f"}),
        ("x = np.zeros(3, 'float64')", {None}),
        ("def f(x):\n    'makes no float64'\n    return x", set()),
    ],
)
def test_the_search_finds_wide_dtypes(source, expected):
    assert wide_dtypes(source) == expected


def test_the_source_makes_no_wide_array():
    """Only `as_float` names float64, which passes one through on a CPU."""
    files = sorted(PACKAGE.rglob("*.py"))
    assert PACKAGE / "kernels" / "head.py" in files
    found = {file.name: names for file in files if (names := wide_dtypes(file.read_text()))}
    assert found == {"ops.py": {"as_float"}}


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


def test_no_function_of_mlx_is_replaced_in_a_step(make_policy, monkeypatch):
    """Families call MLX's attention by its global name, where a step must leave the library's."""
    policy, batch = make_policy("mlx", grad_checkpoint=True), random_batch(2)
    reference = reference_of(policy, batch)
    library, called = mx.fast, set()

    class Watched:
        """Stands for mx.fast: notes what is called, and refuses to be patched."""

        def __getattr__(self, name):
            called.add(name)
            return getattr(library, name)

        def __setattr__(self, name, value):
            raise AssertionError(f"mx.fast.{name} was replaced")

    monkeypatch.setattr(mx, "fast", Watched())
    gradients(policy, [(batch, reference)])
    assert "scaled_dot_product_attention" in called
