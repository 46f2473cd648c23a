"""Models as the hub has them and as transformers 5 saves them: log π is transformers' on both."""

import importlib
import json

import numpy as np
import pytest

from fpo_core.adapters.lora import Adapter
from fpo_core.adapters.merge import write_fused
from fpo_core.backend.policy import Sampling
from fpo_core.config import AdapterConfig, StepConfig
from fpo_core.data.batches import collate
from fpo_core.errors import ModelError
from fpo_core.models.folder import ModelFolder
from tests.backends import family_matrix as matrix

LENGTHS = {"short": matrix.SHORT, "beyond": matrix.BEYOND}
EXACT = 1e-4
LIMITED = {"llama, dynamic": "'dynamic'", "phi3, longrope": "'longrope'"}
"""Families whose frequencies depend on the batch, beyond a length."""
LACKING = {"gpt_oss": r"Received 12 parameters not in model: model\.layers\.0\.mlp\.experts"}
"""Families that mlx-lm does not load, and what the message says."""
PLAIN = [
    ("torch", "stablelm"),
    ("torch", "gpt_oss"),
    *((backend, "cohere2") for backend in ("torch", "mlx")),
]
"""Families that the packed step does not serve."""
WINDOWED = ("mistral", "mixtral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "starcoder2")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders by family and layout, each written once."""
    folders = {}

    def get(family, layout="transformers 5", **changes):
        key = (family, layout, *changes)
        if key not in folders:
            folder = tmp_path_factory.mktemp("model") / "model"
            folders[key] = matrix.write(family, folder, layout, **changes)
        return folders[key]

    return get


@pytest.mark.parametrize("layout", matrix.LAYOUTS)
@pytest.mark.parametrize("family", matrix.FAMILIES)
def test_log_probabilities_are_those_of_transformers(models, backend, family, layout):
    folder = models(family, layout)
    if backend == "mlx" and family in LACKING:
        with pytest.raises(ModelError, match=LACKING[family]):
            matrix.open_model(backend, folder)
        return
    for step in (StepConfig(), StepConfig(plain=True)):
        policy = matrix.open_model(backend, folder, step)
        assert policy.info.fallback is None or (backend, family) in PLAIN
        for length, sizes in LENGTHS.items():
            data = matrix.pairs(sizes)
            if length == "beyond" and family in LIMITED:
                with pytest.raises(ModelError, match=f"35 tokens, .*{LIMITED[family]}.* 16$"):
                    policy.score(collate(data, range(len(data))))
            else:
                expected = matrix.expected_logps(folder, data)
                assert matrix.gap(policy, data, expected) < EXACT, (step, length)


@pytest.mark.parametrize("family", WINDOWED)
def test_the_window_matters(models, family):
    """What the test above would not see, were the window the same as none."""
    data = matrix.pairs(matrix.BEYOND)
    folder = models(family)
    found = matrix.expected_logps(folder, data)
    wide = matrix.expected_logps(models(family, sliding_window=64), data)
    assert np.abs(found - wide).max() / np.abs(found).max() > 10 * EXACT


@pytest.mark.parametrize("family", WINDOWED)
def test_sampling_sees_the_window_too(models, backend, family):
    """Greedy completions of prompts within and beyond the window, one after the other in a batch,
    are transformers' own predictions one token at a time.
    """
    torch, transformers = map(importlib.import_module, ("torch", "transformers"))
    folder = models(family)
    prompts = [matrix.pairs((size, 1))[0].prompt for size in (5, 14)]
    policy = matrix.open_model(backend, folder, StepConfig(plain=True))
    found = policy.generate(prompts, Sampling(max_tokens=12, temperature=0.0))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for prompt, completion in zip(prompts, found, strict=True):
        ids = torch.from_numpy(prompt.astype(np.int64))
        for token in completion:
            with torch.no_grad():
                log_p = model(ids[None], use_cache=False).logits[0, -1].log_softmax(-1)
            # Not the same token, for two may be as likely within rounding.
            assert log_p[int(token)] > log_p.max() - 1e-3
            ids = torch.cat([ids, torch.tensor([int(token)])])


def test_blocks_in_another_order_than_the_pattern_of_the_family(models, backend):
    """mlx-lm counts to the next block without a window; `layer_types` may be any."""
    kinds = ["full_attention", *["sliding_attention"] * 3] * 2
    folder = models("gemma3_text", layer_types=kinds, num_hidden_layers=8)
    data = matrix.pairs(matrix.BEYOND)
    policy = matrix.open_model(backend, folder)
    assert matrix.gap(policy, data, matrix.expected_logps(folder, data)) < EXACT


def test_a_scaling_of_blocks_without_a_window(models, backend):
    """Gemma 3's larger models scale the frequencies of some blocks alone."""
    rope = {
        "full_attention": {"rope_type": "linear", "rope_theta": 500.0, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    }
    folder = models("gemma3_text", rope_parameters=rope)
    data = matrix.pairs(matrix.BEYOND)
    policy = matrix.open_model(backend, folder)
    assert matrix.gap(policy, data, matrix.expected_logps(folder, data)) < EXACT


def test_an_unknown_scaling_is_refused_by_name_on_mlx(models, tmp_path):
    folder = matrix.write("llama", tmp_path / "model")
    settings = json.loads((folder / "config.json").read_text())
    settings["rope_parameters"]["rope_type"] = "spiral"
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"spiral"):
        matrix.open_model("mlx", folder)


@pytest.mark.parametrize("family", ["gpt2", "qwen3_moe", "phi", "mistral", "llama", "gemma3_text"])
def test_a_merged_model_of_either_layout_is_the_adapted_one(models, backend, family, tmp_path):
    """What `fpo fuse` writes of a folder by transformers 5 opens on both, with the same log π."""
    folder = models(family)
    policy = matrix.open_model(backend, folder)
    generator = np.random.default_rng(0)
    weights = {
        name: weight + 0.1 * generator.normal(size=weight.shape).astype(np.float32)
        for name, weight in policy.trained().items()
    }
    policy.load_trained(weights)
    adapter = Adapter(
        rank=2, scale=AdapterConfig().scale, dropout=0.0, num_layers=1, weights=weights
    )
    write_fused(ModelFolder(folder, "base"), adapter, tmp_path / "fused")
    data = matrix.pairs(matrix.BEYOND)
    expected = matrix.expected_logps(tmp_path / "fused", data)
    assert matrix.gap(policy, data, expected) < EXACT
    for other in ("torch", "mlx"):
        assert matrix.gap(matrix.open_model(other, tmp_path / "fused"), data, expected) < EXACT
