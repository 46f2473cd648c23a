"""The fused rotation of queries and keys is each family's own, there and back."""

import sys

import pytest
import torch
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.glm import modeling_glm
from transformers.models.llama import modeling_llama
from transformers.models.qwen3 import modeling_qwen3

from fpo_torch.kernels.rotary import NAME, FusedRotations

FAMILIES = (modeling_llama, modeling_gemma3, modeling_qwen3)


class Member(torch.nn.Module):
    """A layer that says it comes from a family's module."""


def of(module):
    """A model whose layer is of this family."""
    layer = type("Layer", (Member,), {"__module__": module.__name__})()
    return torch.nn.Sequential(layer)


def angles(tokens, width):
    half = torch.rand(1, tokens, width // 2) * 9
    return half.repeat(1, 1, 2)


def slopes(rotate, q, k, cos, sin, **others):
    """Both results, and the gradients of a weighted sum of them."""
    q, k = q.clone().requires_grad_(), k.clone().requires_grad_()
    found = rotate(q, k, cos, sin, **others)
    total = sum((x * torch.sin(torch.arange(x.numel())).view_as(x)).sum() for x in found)
    return [*found, *torch.autograd.grad(total, (q, k))]


@pytest.fixture
def qk():
    torch.manual_seed(0)
    return torch.randn(1, 5, 4, 16).transpose(1, 2), torch.randn(1, 5, 2, 16).transpose(1, 2)


@pytest.mark.parametrize("module", FAMILIES)
def test_it_equals_the_familys_own(module, qk):
    turn = angles(5, 16)
    own = getattr(module, NAME)
    expected = slopes(own, *qk, turn.cos(), turn.sin())
    with FusedRotations(of(module)).on():
        assert getattr(module, NAME) is not own
        found = slopes(getattr(module, NAME), *qk, turn.cos(), turn.sin())
    assert getattr(module, NAME) is own
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_what_it_does_not_know_goes_to_the_familys_own(qk):
    turn = angles(5, 16)
    own = getattr(modeling_llama, NAME)
    expected = slopes(own, *qk, turn.cos(), turn.sin(), unsqueeze_dim=1)
    with FusedRotations(of(modeling_llama)).on():
        found = slopes(getattr(modeling_llama, NAME), *qk, turn.cos(), turn.sin(), unsqueeze_dim=1)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_another_rotation_is_left_alone():
    """GLM turns neighbours, not halves."""
    own = getattr(modeling_glm, NAME)
    with FusedRotations(of(modeling_glm)).on():
        assert getattr(sys.modules[modeling_glm.__name__], NAME) is own


def test_an_error_puts_the_familys_own_back():
    own = getattr(modeling_llama, NAME)
    with pytest.raises(RuntimeError), FusedRotations(of(modeling_llama)).on():
        raise RuntimeError
    assert getattr(modeling_llama, NAME) is own
