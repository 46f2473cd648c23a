"""Writing a canonical file: the check sees all of it, and an error leaves nothing."""

import os

import numpy as np
import pytest

from fpo_core.errors import SaeError
from fpo_core.io.reader import open_safetensors
from fpo_core.io.writer import float_tensor
from fpo_core.sae.metadata import SaeMeta
from fpo_core.sae.sae import load_sae
from fpo_core.sae.writer import write_sae

D_IN, D_SAE = 4, 6
META = SaeMeta(
    architecture="relu", input_transform="none", d_in=D_IN, d_sae=D_SAE, source={"file": "x"}
)
WEIGHTS = {
    "W_enc": np.arange(24, dtype=np.float32).reshape(D_IN, D_SAE),
    "b_enc": np.ones(D_SAE, np.float32),
    "W_dec": np.full((D_SAE, D_IN), 2, np.float32),
    "b_dec": np.zeros(D_IN, np.float32),
}


def tensors(**changes):
    """The weights, or what a change gives in a tensor's place."""
    weights = WEIGHTS | changes
    return [
        float_tensor(name, "F32", weight.shape, lambda weight=weight: iter([weight]))
        for name, weight in weights.items()
    ]


def test_the_check_sees_the_finished_file(tmp_path):
    seen = []

    def check(path):
        seen.append(load_sae(path, verify=True).payload_sha256)
        np.testing.assert_array_equal(open_safetensors(path).rows("W_dec"), WEIGHTS["W_dec"])

    assert [write_sae(tmp_path / "x", META, tensors(), check=check)] == seen
    load_sae(tmp_path / "x", verify=True)


def test_an_encoder_alone_is_checked_too(tmp_path):
    seen = []
    write_sae(tmp_path / "x", META, tensors()[:2], check=seen.append)
    assert len(seen) == 1


def test_a_refusal_leaves_nothing(tmp_path):
    def check(path):
        raise SaeError("wrong formula")

    with pytest.raises(SaeError, match="wrong formula"):
        write_sae(tmp_path / "x", META, tensors(), check=check)
    assert not list(tmp_path.iterdir())


def test_a_number_that_is_not_finite_leaves_nothing(tmp_path):
    with pytest.raises(SaeError, match="a number in W_dec is not finite"):
        write_sae(tmp_path / "x", META, tensors(W_dec=np.full((D_SAE, D_IN), np.nan)))
    assert not list(tmp_path.iterdir())


def test_the_disk_is_waited_for_before_the_rename(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append((tmp_path / "x").exists()))
    write_sae(tmp_path / "x", META, tensors())
    assert synced == [False, True]  # the file, then the folder with its new name
