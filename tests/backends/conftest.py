"""Tiny random models on disk, and the policies that open them. A missing backend fails."""

from pathlib import Path

import pytest

from fpo_convert.sae import convert_sae
from fpo_core.config import AdapterConfig, DataConfig, ModelConfig
from fpo_core.data.load import load_data
from fpo_core.data.tokenizer import load_tokenizer
from fpo_core.sae.hook import Hook
from fpo_core.sae.sae import load_sae
from fpo_core.sae.taps import Features
from tests.backends.support import HIDDEN, UNTRAINED, open_policy, write_tiny_model
from tests.helpers import BACKENDS, random_sae

WORLD = Path(__file__).parents[2] / "fpo" / "world" / "data"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A random Llama with grouped queries and a rope_theta that is nobody's default."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder)
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
        device="cpu",
        dtype="float32",
        step=None,
        zeroth_order=False,
        degree_levels=0,
        value_head=False,
        **adapter,
    ):
        if isinstance(sae, str):
            sae = random_sae(HIDDEN, kind=sae)
        tap = None if sae is None else Features.of(sae, Hook.parse(hook), untrained)
        config = ModelConfig(model=str(folder), device=device, dtype=dtype)
        options = {"grad_checkpoint": grad_checkpoint, "step": step, "zeroth_order": zeroth_order}
        options |= {"degree_levels": degree_levels, "value_head": value_head}
        return open_policy(backend, folder, config, AdapterConfig(**adapter), tap, **options)

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
