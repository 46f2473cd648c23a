"""Tiny random models on disk, and the policies that open them. A missing backend fails."""

import importlib
import json
from pathlib import Path

import pytest

from fpo_convert.sae import convert_sae
from fpo_core.config import AdapterConfig, DataConfig, ModelConfig
from fpo_core.data import load_data, load_tokenizer
from fpo_core.feature_tap import FeatureTap
from fpo_core.sae import load_sae
from fpo_core.sae_hook import Hook
from tests.backends.support import HIDDEN, UNTRAINED
from tests.helpers import BACKENDS, random_sae

WORLD = Path(__file__).parents[2] / "cli" / "fpo_cli" / "world" / "data"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A random Llama with grouped queries and a rope_theta that is nobody's default."""
    torch = importlib.import_module("torch")
    transformers = importlib.import_module("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        initializer_range=0.25,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config)
    folder = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(folder)
    # Habits that a hub model may bring and that sampling must not follow
    habits = {"eos_token_id": 2, "repetition_penalty": 4.0, "top_k": 1, "temperature": 0.1}
    (folder / "generation_config.json").write_text(json.dumps(habits))
    return folder


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Each backend in turn."""
    return request.param


@pytest.fixture(scope="session")
def make_policy(tiny):
    """Open a policy of a backend; further keywords are adapter settings."""

    def make(
        backend,
        folder=tiny,
        *,
        hook="blocks.1.hook_resid_post",
        sae="relu",
        untrained=UNTRAINED,
        grad_checkpoint=False,
        dtype="float32",
        **adapter,
    ):
        name = {"torch": "TorchPolicy", "mlx": "MlxPolicy"}[backend]
        kind = getattr(importlib.import_module(f"fpo_{backend}.policy"), name)
        if isinstance(sae, str):
            sae = random_sae(HIDDEN, kind=sae)
        tap = None if sae is None else FeatureTap(sae, Hook.parse(hook), untrained)
        config = ModelConfig(model=str(folder), device="cpu", dtype=dtype)
        chosen = AdapterConfig(**adapter)
        return kind(Path(folder), config, chosen, tap, grad_checkpoint=grad_checkpoint)

    return make


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """The quickstart world: model folder, first training pairs in tokens, autoencoder."""
    folder = tmp_path_factory.mktemp("world")
    sae_file = folder / "sae.safetensors"
    convert_sae(WORLD / "sae", sae_file)
    sae = load_sae(sae_file)
    tokenizer = load_tokenizer(str(WORLD / "model"))
    settings = DataConfig(data=str(WORLD / "pairs"), max_rows=160, cache=str(folder))
    pairs = load_data(settings, tokenizer).train
    return WORLD / "model", pairs, sae
