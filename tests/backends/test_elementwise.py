"""Norms and rotary positions equal those of each family, forward and backward."""

import pytest
import torch
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.glm import modeling_glm
from transformers.models.llama import modeling_llama
from transformers.models.qwen3 import modeling_qwen3

from fpo_torch.forward_patch import is_patched
from fpo_torch.kernels.elementwise import ROTARY, ElementwiseKernel

FAMILIES = (modeling_llama, modeling_gemma3, modeling_qwen3)


def model_of(family):
    """A model with one layer, of a class of this family's module."""
    layer = type("Layer", (torch.nn.Module,), {"__module__": family.__name__})()
    return torch.nn.Sequential(layer)


def gradients(function, inputs, *args, **kwargs):
    """All results, and the gradients of a weighted sum of them by the inputs."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    results = function(*inputs, *args, **kwargs)
    results = results if isinstance(results, tuple) else (results,)
    total = sum((x * torch.sin(torch.arange(x.numel())).view_as(x)).sum() for x in results)
    return [*results, *torch.autograd.grad(total, inputs)]


@pytest.fixture
def qk():
    """Queries of 4 heads and keys of 2, for 5 tokens."""
    torch.manual_seed(0)
    return torch.randn(1, 5, 4, 16).transpose(1, 2), torch.randn(1, 5, 2, 16).transpose(1, 2)


@pytest.fixture
def angles():
    """cos and sin (1, 5, 16), whose halves repeat."""
    half = torch.rand(1, 5, 8) * 9
    both = half.repeat(1, 1, 2)
    return both.cos(), both.sin()


@pytest.mark.parametrize("family", FAMILIES)
def test_rotary_equals_the_familys(family, qk, angles):
    before = getattr(family, ROTARY)
    expected = gradients(before, qk, *angles)
    with ElementwiseKernel(model_of(family)).on():
        assert getattr(family, ROTARY) is not before
        results = gradients(getattr(family, ROTARY), qk, *angles)
    assert getattr(family, ROTARY) is before
    torch.testing.assert_close(results, expected)


def test_unknown_arguments_go_to_the_familys_function(qk, angles):
    expected = gradients(getattr(modeling_llama, ROTARY), qk, *angles, unsqueeze_dim=1)
    with ElementwiseKernel(model_of(modeling_llama)).on():
        results = gradients(getattr(modeling_llama, ROTARY), qk, *angles, unsqueeze_dim=1)
    torch.testing.assert_close(results, expected, rtol=0, atol=0)


def test_another_rotary_function_is_left_alone():
    """GLM rotates neighbours, not halves."""
    before = getattr(modeling_glm, ROTARY)
    with ElementwiseKernel(model_of(modeling_glm)).on():
        assert getattr(modeling_glm, ROTARY) is before


def fail_within(kernel):
    with kernel.on():
        raise RuntimeError


def test_an_error_restores_the_familys_function():
    before = getattr(modeling_llama, ROTARY)
    with pytest.raises(RuntimeError):
        fail_within(ElementwiseKernel(model_of(modeling_llama)))
    assert getattr(modeling_llama, ROTARY) is before


def norm_of(name, **weight):
    """A frozen norm of 16 numbers with random weights."""
    norm = {"llama": modeling_llama.LlamaRMSNorm, "gemma": modeling_gemma3.Gemma3RMSNorm}[name](16)
    torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
    return norm.requires_grad_(False).to(**weight)


@pytest.mark.parametrize("name", ["llama", "gemma"])
@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_a_norm_equals_the_familys(name, size):
    """At 1e-3 the mean square is that of ε = 1e-6."""
    norm = norm_of(name)
    x = torch.randn((1, 5, 16), generator=torch.Generator().manual_seed(0)) * size
    expected = gradients(norm, [x])
    with ElementwiseKernel(norm).on():
        assert is_patched(norm)
        results = gradients(norm, [x])
    assert not is_patched(norm)
    torch.testing.assert_close(results, expected)


@pytest.mark.parametrize(
    "norm",
    [
        norm_of("llama", dtype=torch.bfloat16),
        norm_of("llama").requires_grad_(),
        torch.nn.LayerNorm(16).requires_grad_(False),
    ],
    ids=["bfloat16 on a CPU", "trained", "with a mean"],
)
def test_other_norms_are_left_alone(norm):
    with ElementwiseKernel(norm).on():
        assert not is_patched(norm)
