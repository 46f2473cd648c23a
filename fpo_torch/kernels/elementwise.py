"""RMS norms and rotary positions, each one function with half the passes over memory.

Shapes: a norm's x (..., d), weight w (d,) -> (..., d); queries (1, h, t, d), keys (1, g, t, d) and
angles cos, sin (1, t, d) -> queries and keys of the same shapes.

    norm     y = x · s · (w + offset), s = 1 / √(mean x² + ε)      saves x, w, s (..., 1)
    rotary   y = x · cos + (−x₂, x₁) · sin, (x₁, x₂) x's halves    saves cos, sin

transformers writes x², x · s and its product with w, or the exchanged halves and two products, and
autograd saves x · s besides. Here sums accumulate in place, and backward is as short.

It exists because these layers do little arithmetic per number, and so wait for memory. Norms and
rotary positions save 2 to 3% of a step together; without them it is slower than it once was by more
than the 2% that a release may lose.
"""

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fpo_torch import ops
from fpo_torch.compiled import compiled_on_gpu, compiles_on
from fpo_torch.forward_patch import patched
from fpo_torch.sharded.model import modules_with_weights

ROTARY = "apply_rotary_pos_emb"
"""What each family's module in transformers calls its own rotary function."""
Rotary = Callable[..., tuple[Tensor, Tensor]]


class ElementwiseKernel:
    """Replaces the norms and rotary functions that equal those above on random inputs."""

    def __init__(self, model: nn.Module) -> None:
        norms = ((module, _recognise_norm(module)) for module in modules_with_weights(model))
        self._norms = [(module, _norm_forward(module, *args)) for module, args in norms if args]
        names = {type(module).__module__ for module in model.modules()}
        families = [sys.modules[name] for name in names if hasattr(sys.modules.get(name), ROTARY)]
        self._families = [f for f in families if _recognise_rotary(getattr(f, ROTARY))]

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Within, forward and backward passes of these use the kernel."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(patched(self._norms))
            for family in self._families:
                rotary = getattr(family, ROTARY)
                # A function of the module, not of a layer: every model of the family sees it.
                setattr(family, ROTARY, _rotary_forward(rotary))
                stack.callback(setattr, family, ROTARY, rotary)
            yield


def _norm_forward(module: nn.Module, eps: float, offset: float) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return type(module).forward(module, x)
        return _RmsNorm.apply(x, module.weight, eps, offset)

    return forward


@torch.no_grad()
def _recognise_norm(module: nn.Module) -> tuple[float, float] | None:
    """ε and offset of a frozen RMS norm; None for other modules.

    Compared on random vectors in float32, one of them so short that ε matters.
    """
    weight: Any = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if "RMSNorm" not in type(module).__name__ or weight is None or not isinstance(eps, float):
        return None
    # A CPU that casts bfloat16 in passes of their own loses more than it gains here.
    cheap = weight.dtype == torch.float32 or compiles_on(weight.device)
    if weight.requires_grad or not cheap:
        return None
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((2, *weight.shape), generator=generator).to(weight.device)
    x[1] *= eps**0.5
    try:
        expected = module.forward(x)  # without hooks, with which FSDP would free the weight
    except Exception:  # not a function of x alone, as Qwen 3.5's norm, which takes a gate too
        return None
    for offset in (0.0, 1.0):  # Gemma stores w − 1
        if torch.allclose(_normalise(x, weight, eps, offset)[0], expected, rtol=1e-5, atol=1e-6):
            return eps, offset
    return None


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor:
        y, scale = _normalise(x, weight, eps, offset)
        ctx.save_for_backward(x, weight, scale)
        ctx.offset = offset
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of x; none of weight, which is frozen."""
        x, weight, scale = ctx.saved_tensors
        return _norm_gradient(grad_outputs[0], x, weight, scale, ctx.offset), None, None, None


@compiled_on_gpu
def _normalise(x: Tensor, weight: Tensor, eps: float, offset: float) -> tuple[Tensor, Tensor]:
    """y in x.dtype and s (..., 1) in float32, in which both are computed."""
    wide = ops.as_float(x)
    norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return (wide * scale).mul_(_with_offset(weight, offset)).to(x.dtype), scale


@compiled_on_gpu
def _norm_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, scale: Tensor, offset: float
) -> Tensor:
    """g · s − x · s³ · ⟨g, x⟩ / d, where g is y's gradient times w + offset."""
    wide = ops.as_float(x)
    g = ops.as_float(gradient) * _with_offset(weight, offset)
    projection = torch.linalg.vecdot(g, wide).unsqueeze(-1)
    projection = projection * scale**3 / -x.shape[-1]
    return g.mul_(scale).addcmul_(wide, projection).to(x.dtype)


def _with_offset(weight: Tensor, offset: float) -> Tensor:
    weight = ops.as_float(weight)
    return weight + offset if offset else weight


def _rotary_forward(rotary: Rotary) -> Rotary:
    def forward(
        q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **others: Any
    ) -> tuple[Tensor, Tensor]:
        # Partial rotations, other layouts and casts are left to the family's function.
        whole = q.shape[-1] == cos.shape[-1] == k.shape[-1] and q.dtype == cos.dtype
        if args or others or not whole or torch.compiler.is_compiling():
            return rotary(q, k, cos, sin, *args, **others)
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        return _Rotary.apply(q, cos, sin), _Rotary.apply(k, cos, sin)

    return forward


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of x: a rotation's transpose is the rotation by the negated angles."""
        cos, sin = ctx.saved_tensors
        return _rotate(grad_outputs[0], cos, sin, -1), None, None


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    """x (1, h, t, d) by the angles of cos, sin (1, 1, t, d), whose halves repeat, times sign."""
    half = x.shape[-1] // 2
    y = x * cos
    y[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-sign)
    y[..., half:].addcmul_(x[..., :half], sin[..., half:], value=sign)
    return y


@torch.no_grad()
def _recognise_rotary(rotary: Rotary) -> bool:
    """Whether it rotates random vectors as `_rotate` does; GLM's pairs neighbours, not halves."""
    if list(inspect.signature(rotary).parameters)[:4] != ["q", "k", "cos", "sin"]:
        return False
    generator = torch.Generator().manual_seed(0)
    q = torch.randn((1, 2, 3, 8), generator=generator)
    k = torch.randn((1, 1, 3, 8), generator=generator)
    angles = torch.randn((1, 3, 4), generator=generator).repeat(1, 1, 2)
    cos, sin = angles.cos(), angles.sin()
    try:
        results = zip(rotary(q, k, cos, sin), (q, k), strict=True)
    except RuntimeError:  # GPT-OSS takes angles of half the width
        return False
    return all(
        torch.allclose(y, _rotate(x, cos[:, None], sin[:, None], 1), rtol=1e-5, atol=1e-6)
        for y, x in results
    )
