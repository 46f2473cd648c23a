"""What a GPU runs, traced on a CPU: compiled functions and blocks, FlexAttention's own mathematics.

Only the kernels are missing, which `test_fast` tries where there is a GPU.
"""

import functools

import pytest
import torch
from torch.nn.attention import flex_attention

import fpo_torch.compiled
import fpo_torch.device
import fpo_torch.fast
import fpo_torch.fused_head
import fpo_torch.fused_norm
from fpo_core.config import StepConfig
from fpo_core.sae_hook import Hook
from tests.backends.families import write_family
from tests.backends.support import difference, gradients, reference_of, shaken
from tests.helpers import random_batch

USERS = (
    fpo_torch.compiled,
    fpo_torch.device,
    fpo_torch.fast,
    fpo_torch.fused_head,
    fpo_torch.fused_norm,
)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Code takes this CPU for a GPU, and compiles to torch's own operations."""
    trace = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", trace)
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *tensors: None)
    monkeypatch.setattr(fpo_torch.fast, "BLOCK", 1)
    for module in USERS:
        monkeypatch.setattr(module, "compiles_on", lambda device: True)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize(
    ("name", "site", "checkpoint", "blocks"),
    [
        ("llama", "resid_post", False, False),
        ("gemma2", "resid_post", False, False),
        ("gemma2", "mlp_out", True, True),
        ("llama", "z", False, True),
    ],
)
def test_gradients_are_the_plain_steps(make_policy, tmp_path, name, site, checkpoint, blocks):
    change = {"attn_logit_softcapping": 2.0, "sliding_window": 6} if name == "gemma2" else {}
    folder = write_family(name, tmp_path, num_hidden_layers=2, **change)
    found, start, reference = [], None, None
    batches = [random_batch(3), random_batch(4)]  # of two lengths: a shape is not compiled in
    for plain in (True, False):
        step = StepConfig(plain=plain, compile=blocks and not plain)
        options = {"hook": str(Hook(0, site)), "grad_checkpoint": checkpoint, "step": step}
        policy = make_policy("torch", folder=folder, **options)
        assert policy.info.fallback is None
        start = start or shaken(policy.trained())
        reference = reference or [(batch, reference_of(policy, batch)) for batch in batches]
        policy.load_trained(start)
        found.append(gradients(policy, reference))
    assert difference(found[1], found[0]) < 1e-5
