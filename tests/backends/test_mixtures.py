"""Mixtures of experts: both backends adapt the same modules, and say what stays frozen."""

import importlib
import json

import numpy as np
import pytest

from fpo_core.adapters.lora import Adapter
from fpo_core.adapters.reader import load_adapter
from fpo_core.adapters.writer import save_adapter
from fpo_core.config import AdapterConfig, ModelConfig
from fpo_core.data.batches import collate
from fpo_core.errors import ModelError
from fpo_core.models.folder import ModelFolder
from tests.backends import family_matrix as matrix
from tests.backends.support import open_policy, shaken
from tests.helpers import BACKENDS

PROJECTIONS = ["k_proj", "o_proj", "q_proj", "v_proj"]


@pytest.fixture(scope="module", params=["mixtral", "qwen3_moe"])
def folder(request, tmp_path_factory):
    return matrix.write(request.param, tmp_path_factory.mktemp("moe") / "model")


def opened(backend, folder, **adapter):
    config = ModelConfig(model=str(folder), device="cpu", dtype="float32")
    return open_policy(backend, folder, config, AdapterConfig(rank=2, **adapter), None)


def test_the_default_modules_are_the_same_and_what_stays_is_said(folder):
    torch, mlx = (opened(backend, folder) for backend in BACKENDS)
    names = {f"{i}.self_attn.{p}.lora_{m}" for i in range(4) for p in PROJECTIONS for m in "AB"}
    assert set(torch.trained()) == set(mlx.trained()) == names
    said = (
        "the model is a mixture of experts: adapters are on k_proj, o_proj, q_proj, v_proj, "
        "its experts and routers stay frozen"
    )
    assert torch.info.frozen == mlx.info.frozen == said


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_backend_opens_the_other_s_adapter(backend, folder, tmp_path):
    policy = opened(backend, folder)
    policy.load_trained(shaken(policy.trained()))
    data = matrix.pairs(matrix.BEYOND)
    batch = collate(data, range(len(data)))
    expected = policy.score(batch).logps
    adapter = Adapter(2, AdapterConfig().scale, 0.0, -1, policy.trained())
    model = ModelFolder(folder, str(folder))
    save_adapter(tmp_path, adapter, base_model=str(folder), layout=model.layout)
    read = load_adapter(tmp_path, model.layers)
    for other in BACKENDS:
        opens = opened(other, folder, target_modules=tuple(read.modules()))
        opens.load_trained(read.weights)
        np.testing.assert_allclose(opens.score(batch).logps, expected, rtol=1e-5)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == [
        f"self_attn.{name}" for name in PROJECTIONS
    ]
    # transformers' own model through PEFT, without a policy of ours.
    peft, transformers = map(importlib.import_module, ("peft", "transformers"))
    base = transformers.AutoModelForCausalLM.from_pretrained(folder)
    peft.PeftModel.from_pretrained(base, tmp_path)


def test_a_dense_model_has_no_such_line(backend, tiny):
    assert opened(backend, tiny).info.frozen is None


def test_a_router_may_be_asked_for_on_mlx(folder):
    policy = opened("mlx", folder, target_modules=("gate",))
    assert "experts stay frozen" in policy.info.frozen
    assert all(".gate." in name for name in policy.trained())


def test_full_training_on_mlx_is_refused_whose_experts_transformers_could_not_load(folder):
    with pytest.raises(ModelError, match="which could not load the result: use the torch backend"):
        opened("mlx", folder, fine_tune_type="full")
