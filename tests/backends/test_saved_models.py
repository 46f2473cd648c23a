"""What transformers saves loads on both backends, and computes the same."""

import mlx.core as mx
import numpy as np
import pytest
import torch
import transformers

import fpo_mlx.models
import fpo_torch.models
from fpo_core.config import ModelConfig
from tests.backends.families import APART, FAMILIES, OTHERS, ROUNDED

ALL = FAMILIES | ROUNDED | OTHERS


@pytest.mark.parametrize("family", ALL)
def test_a_round_trip_of_save_pretrained(family, tmp_path):
    name, settings = ALL[family]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        getattr(transformers, f"{name}Config")(**settings)
    ).eval()
    model.save_pretrained(tmp_path)
    tokens = np.arange(3, 14)[None]
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens)).logits.numpy()
    config = ModelConfig(model=str(tmp_path))
    again = fpo_torch.models.load_model(tmp_path, config, torch.float32).eval()
    with torch.no_grad():
        assert np.array_equal(again(torch.from_numpy(tokens)).logits.numpy(), expected)
    on_mlx = fpo_mlx.models.load_model(tmp_path, config, mx.float32).model
    found = np.array(on_mlx(mx.array(tokens)))
    tolerance = APART.get(family, 1e-5)
    np.testing.assert_allclose(found, expected, atol=tolerance * abs(expected).max())
