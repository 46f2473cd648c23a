"""What a GPU runs, traced on a CPU: compiled functions and blocks, FlexAttention's own mathematics.

Only the kernels are missing, which `test_packed_step` tries where there is a GPU.
"""

import functools

import pytest
import torch
from torch.nn.attention import flex_attention
from torch.nn.attention.flex_attention import create_block_mask

import fpo_torch.compiled
import fpo_torch.packed_step
from fpo_core.config import StepConfig
from fpo_core.data.batches import collate
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.loss.packing import Row
from fpo_core.sae.hook import Hook
from fpo_torch.kernels import flex_row
from fpo_torch.kernels.flex_row import FlexRow
from tests.backends.families import write_family
from tests.backends.support import difference, gradients, reference_of, shaken
from tests.helpers import random_batch


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Code takes this CPU for a GPU, and compiles to torch's own operations."""
    torch.compiler.reset()  # what other tests' models left counts as theirs
    flex_row._compiled.cache_clear()
    trace = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", trace)
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *tensors: None)
    monkeypatch.setattr(fpo_torch.packed_step, "BLOCK", 1)
    monkeypatch.setattr(fpo_torch.compiled, "compiling_devices", lambda: {"cpu"})


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


@pytest.mark.parametrize("window", [None, 300])
def test_a_row_is_seen_in_the_squares_that_torch_finds(window):
    pairs = TokenisedPairs.from_lists([([1] * 400, [2] * 90, [3] * 170), ([4] * 30, [5], [6] * 9)])
    row = Row.of(collate(pairs, range(2)))
    found = FlexRow(row, [None, 300], torch.device("cpu"))._masks[window]
    count = len(row.tokens)
    expected = vars(create_block_mask(found["mask_mod"], None, None, count, count, device="cpu"))
    assert found.keys() == expected.keys() - {"seq_lengths"}
    assert all(expected[name].sum() for name in ("kv_num_blocks", "full_kv_num_blocks"))
    for name, each in expected.items():
        if isinstance(each, torch.Tensor):
            assert torch.equal(found[name], each), name


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("blocks", [False, True])
def test_two_lengths_compile_for_all_others(make_policy, tmp_path, blocks):
    """Else torch gives up after eight, and what was to be fast is slow for good."""
    folder = write_family("gemma2", tmp_path, num_hidden_layers=4, sliding_window=6)
    policy = make_policy("torch", folder=folder, step=StepConfig(compile=blocks))
    assert policy.info.fallback is None
    batches = [random_batch(count) for count in (10, 14, 9, 12)]  # rows of 128 tokens and more
    gradients(policy, [(batch, reference_of(policy, batch)) for batch in batches[:2]])
    with torch.compiler.set_stance("fail_on_recompile"):
        gradients(policy, [(batch, reference_of(policy, batch)) for batch in batches[2:]])
