"""The golden values: a second opinion agrees with them, and a wrong one is noticed."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from fpo_core.arrays import numpy_ops
from fpo_core.backend.selftest import GOLDEN, Check, check_mathematics
from tests.helpers import BACKENDS

MAKER = Path(__file__).parents[1] / "golden" / "make_core.py"


class NumpyCalculator:
    """The core itself, without gradients of its own: forward differences stand in."""

    def evaluate(self, function, arrays):
        return function(numpy_ops, arrays)

    def gradients(self, function, arrays, names):
        return {name: np.zeros_like(arrays[name]) for name in names}


@pytest.fixture(scope="module")
def content():
    return json.loads(GOLDEN.read_text())


@pytest.fixture(params=BACKENDS)
def calculator(request):
    if request.param == "torch":
        import torch

        from fpo_torch.selftest_autodiff import TorchCalculator

        return TorchCalculator(torch.device("cpu"))
    from fpo_mlx.selftest_autodiff import MlxCalculator

    return MlxCalculator()


def test_the_file_is_what_its_maker_makes(content):
    spec = importlib.util.spec_from_file_location("make_core", MAKER)
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert content == json.loads(json.dumps(maker.make()))


def test_the_activations_differ(content):
    pooled = [content["expected"][kind]["pooled"] for kind in ("relu", "jumprelu", "topk")]
    assert pooled[0] != pooled[1] != pooled[2] != pooled[0]


def test_backends_pass(calculator):
    checks = check_mathematics(calculator)
    assert len(checks) == 26
    assert [check.name for check in checks if not check.passed] == []


def test_a_wrong_gradient_fails():
    failed = [check.name for check in check_mathematics(NumpyCalculator()) if not check.passed]
    assert failed == ["gradient of logits", "gradient of hidden"]


@pytest.mark.parametrize("name", ["logps", "lengths", "kl", "entropy", "pooled", "d", "losses"])
def test_an_altered_golden_value_fails(calculator, content, tmp_path, name):
    altered = json.loads(json.dumps(content))
    values = altered["expected"]["jumprelu"][name]
    if name == "pooled":
        values = values[0]
    values[1] += 0.01
    file = tmp_path / "golden.json"
    file.write_text(json.dumps(altered))
    failed = [check.name for check in check_mathematics(calculator, file) if not check.passed]
    assert failed == [f"jumprelu {name}"]


@pytest.mark.parametrize("difference", [np.inf, np.nan])
def test_what_is_not_a_number_never_passes(difference):
    assert not Check("x", difference, 1.0).passed
