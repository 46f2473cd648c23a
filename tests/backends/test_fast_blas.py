"""The borrowed BLAS: loaded before MLX or not at all, and equal in its products."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROBE = """
import sys
from tests.fast_blas import load_fast_blas
early = load_fast_blas()
assert not {"torch", "mlx.core"} & set(sys.modules)
import mlx.core as mx
import numpy as np
x = np.random.default_rng(0).normal(size=(70, 50)).astype(np.float32)
np.testing.assert_allclose(np.array(mx.array(x) @ mx.array(x).T), x @ x.T, rtol=1e-4, atol=1e-4)
print(early, load_fast_blas())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the helper does nothing elsewhere")
def test_it_is_loaded_before_mlx_and_refused_after():
    command = [sys.executable, "-c", PROBE]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    early, late = out.split()
    assert early.endswith("libtorch_cpu.so")
    assert late == "None"


def test_elsewhere_it_does_nothing(monkeypatch):
    from tests.fast_blas import load_fast_blas

    monkeypatch.setattr(sys, "platform", "darwin")
    assert load_fast_blas() is None
