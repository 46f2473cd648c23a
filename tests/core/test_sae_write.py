"""Writing a canonical file: what checks it runs beside the writing, and an error leaves nothing."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fpo_core.errors import SaeError
from fpo_core.io.reader import open_safetensors
from fpo_core.sae.metadata import SaeMeta
from fpo_core.sae.sae import load_sae
from fpo_core.sae.writer import Plan, write_sae, write_safetensors

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


def plans(**changes):
    """The weights, or what a change gives in a tensor's place."""
    return [
        Plan(name, "F32", weight.shape, changes.get(name, lambda weight=weight: iter([weight])))
        for name, weight in WEIGHTS.items()
    ]


@pytest.fixture
def pool():
    with ThreadPoolExecutor(1) as found:
        yield found


def encoder_in(path):
    """What a check reads of a file that is not finished."""
    return open_safetensors(path).rows("W_enc"), load_sae(path, verify=False)


def test_the_check_runs_while_the_decoder_is_written(tmp_path, pool):
    seen, done = [], threading.Event()

    def check(path):
        seen.append(encoder_in(path)[0].copy())
        done.set()

    def decoder():
        assert done.wait(30), "the check waited for the decoder"
        yield WEIGHTS["W_dec"]

    write_sae(tmp_path / "x", META, plans(W_dec=decoder), check=check, beside=pool)
    np.testing.assert_array_equal(seen[0], WEIGHTS["W_enc"])
    load_sae(tmp_path / "x", verify=True)


def test_without_a_place_beside_it_runs_after(tmp_path):
    seen = []

    def check(path):
        seen.append(open_safetensors(path).rows("W_dec").copy())

    write_sae(tmp_path / "x", META, plans(), check=check)
    np.testing.assert_array_equal(seen[0], WEIGHTS["W_dec"])


def test_an_encoder_alone_is_checked_too(tmp_path, pool):
    seen = []
    write_sae(tmp_path / "x", META, plans()[:2], check=seen.append, beside=pool)
    assert len(seen) == 1


@pytest.mark.parametrize("beside", [True, False])
def test_a_refusal_leaves_nothing(tmp_path, pool, beside):
    def check(path):
        raise SaeError("wrong formula")

    with pytest.raises(SaeError, match="wrong formula"):
        write_sae(tmp_path / "x", META, plans(), check=check, beside=pool if beside else None)
    assert not list(tmp_path.iterdir())


def test_an_error_in_writing_waits_for_the_check(tmp_path, pool):
    """Which reads the file that is about to vanish."""
    begun, found = threading.Event(), []

    def check(path):
        begun.set()
        found.append(encoder_in(path)[0].copy())

    def decoder():
        assert begun.wait(30)
        yield np.full((D_SAE, D_IN), np.nan, np.float32)

    with pytest.raises(SaeError, match="not finite"):
        write_sae(tmp_path / "x", META, plans(W_dec=decoder), check=check, beside=pool)
    assert len(found) == 1
    assert not list(tmp_path.iterdir())


def test_the_disk_is_waited_for_where_something_could_be_lost(tmp_path, monkeypatch):
    """A new file that holds its own hash can tell, once the power is back, and be made again."""
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    write_sae(tmp_path / "x", META, plans())
    assert len(synced) == 0
    write_sae(tmp_path / "x", META, plans())
    assert len(synced) == 1, "the file that was there is gone before the new one is safe"
    write_safetensors(tmp_path / "y", plans())
    assert len(synced) == 2, "nothing tells whether a plain file is whole"
