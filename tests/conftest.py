"""Fixtures for every test, and what must happen before a framework is imported."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLX_ENABLE_TF32", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Matrices here are tiny: threads that wait for each other by spinning cost ten times the work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tests.fast_blas import load_fast_blas

load_fast_blas()  # before any test module imports mlx: a suite of minutes instead of an hour

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile("fpo", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("fpo")


@pytest.fixture
def mlx_on_the_cpu():
    """For float64, which Metal has not."""
    import mlx.core as mx

    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    yield
    mx.set_default_device(before)
