"""Weights whose file is cut short under a run: no process dies of it (SIGBUS), nothing changes."""

import importlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fpo.backends import build_reader
from fpo_core.config import ModelConfig
from fpo_core.errors import ModelError
from fpo_core.models.folder import ModelFolder
from fpo_core.sae.hook import Hook
from tests.backends.families import write_quantised
from tests.helpers import random_batch

MAPS = Path("/proc/self/maps")


@pytest.fixture
def model(tiny, tmp_path):
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def cut(folder):
    for path in folder.glob("*.safetensors"):
        # A page that is touched beyond the end of a mapped file ends the process.
        assert not MAPS.exists() or str(path) not in MAPS.read_text()
        os.truncate(path, 100)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_policy_has_its_weights_in_memory(backend, model, make_policy, kind):
    policy = make_policy(backend, model, fine_tune_type=kind)
    before = policy.score(random_batch(2)).logps
    cut(model)
    np.testing.assert_array_equal(policy.score(random_batch(2)).logps, before)


def test_so_has_a_reader(backend, model):
    config = ModelConfig(model=str(model), device="cpu")
    reader = build_reader(backend, model, config, [Hook.parse("blocks.1.hook_resid_post")])
    tokens = np.array([[5, 6, 7]], np.int32)
    before = reader.numpy(reader.read(tokens)[0])
    cut(model)
    np.testing.assert_array_equal(reader.numpy(reader.read(tokens)[0]), before)


LOADERS = {
    "torch": ("fpo_torch.models", "AutoModelForCausalLM", "from_pretrained"),
    "mlx": ("fpo_mlx.models", "utils", "load_model"),
}


def test_a_file_that_changes_while_it_is_loaded_is_an_error(
    backend, model, make_policy, monkeypatch
):
    """MLX reads other numbers then, now and then without an error."""
    module, holder, name = LOADERS[backend]
    library = getattr(importlib.import_module(module), holder)
    load = getattr(library, name)

    def cut_after(*args, **options):
        found = load(*args, **options)
        os.truncate(model / "model.safetensors", 100)
        return found

    monkeypatch.setattr(library, name, cut_after)
    with pytest.raises(ModelError, match="was changed while its weights were read"):
        make_policy(backend, model)


def test_weights_that_are_dequantised_one_by_one_are_missed(model, tmp_path):
    folder = ModelFolder(write_quantised(model, tmp_path / "quantised"), "quantised")
    module = importlib.import_module("fpo_mlx.dequantise")
    assert folder.quantisation is not None
    weights = module.Dequantiser(folder.weight_files, folder.quantisation)
    cut(folder.path)
    with pytest.raises(ModelError, match="was changed or cut short while it was in use"):
        weights.weight("model.layers.0.self_attn.q_proj.weight")
