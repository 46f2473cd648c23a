"""Checkpoints written by SAELens itself: the canonical encode equals SAELens's own features."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch

import fpo_mlx.ops
import fpo_torch.ops
from fpo_convert.sae import convert_sae
from fpo_core.arrays import numpy_ops
from fpo_core.sae.sae import load_sae

GOLDEN = Path(__file__).parents[1] / "golden" / "sae"
CASES = sorted(path.parent.name for path in GOLDEN.glob("*/golden.npz"))


def on_numpy(sae, x):
    return sae.encode(numpy_ops, x)


def on_torch(sae, x):
    return sae.encode(fpo_torch.ops, torch.from_numpy(x)).numpy()


def on_mlx(sae, x):
    return np.array(sae.encode(fpo_mlx.ops, mx.array(x)))


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    made = {}

    def convert(case):
        if case not in made:
            golden = np.load(GOLDEN / case / "golden.npz")
            out = tmp_path_factory.mktemp("sae") / "sae.safetensors"
            report = convert_sae(GOLDEN / case, out)
            made[case] = golden["x"], golden["features"], load_sae(out), report
        return made[case]

    return convert


def test_there_are_enough_cases():
    assert len(CASES) >= 40


@pytest.mark.parametrize("encode", [on_numpy, on_torch, on_mlx])
@pytest.mark.parametrize("case", CASES)
def test_canonical_encode_is_sae_lens_encode(case, encode, converted):
    x, expected, sae, _ = converted(case)
    assert (expected != 0).any()
    found = encode(sae, x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert ((found != 0) == (expected != 0)).all()


@pytest.mark.parametrize("case", CASES)
def test_verification_agrees(case, converted):
    _, _, _, report = converted(case)
    assert report.relative_difference is not None
    assert report.relative_difference < 1e-5
    assert report.unexplained_flips == 0


@pytest.mark.parametrize("case", [case for case in CASES if "transcoder" not in case])
def test_reconstruction_is_sae_lens_reconstruction(case, converted):
    x, _, sae, _ = converted(case)
    expected = np.load(GOLDEN / case / "golden.npz")["reconstruction"]
    found = sae.reconstruct(numpy_ops, x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
