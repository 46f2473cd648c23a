"""The output layer at the scored tokens: terms of each, from chunks of logits that are not kept.

Shapes: states h (N, d) and labels (N,) -> log π (N,), with a reference's states also KL (N,).

A sequence enters the loss through sums of these terms, so the loss's gradient by a state is that of
its own term times one number. With a frozen layer, forward computes ∂term/∂h (N, d) chunk by chunk
and saves it instead of logits (N, v); backward scales its rows. With a trained layer a chunk's
states are saved, and its logits computed again in backward.

It exists because logits of a large vocabulary are a step's largest arrays on every device: 600
tokens of a 49,152-word vocabulary take 118 MB, of which autograd would save several.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from fpo_core.loss.packed import TokenTerms
from fpo_core.loss.packing import chunk_rows
from fpo_torch import ops
from fpo_torch.compiled import compiled_on_gpu, compiles_on

Logits = Callable[[Tensor], Tensor]
"""(n, d) hidden states -> (n, v) logits."""
Precision = Callable[[], contextlib.AbstractContextManager[Any]]
"""Makes the context in which a layer computes, such as autocast."""
Method = tuple[int, Callable[..., list[tuple[Tensor, Tensor]]]]
"""Tokens of a chunk, and a function of it: its terms (n,), each with its gradient (n, d)."""
_COPIES = 3
"""Arrays of a chunk's logits that live at once: the logits, their softmax, a gradient."""


class Head:
    """A causal model's output layer, with the soft cap that follows it in Gemma."""

    def __init__(self, model: PreTrainedModel, budget: int, precision: Precision) -> None:
        config = model.config.get_text_config()
        module = model.get_output_embeddings()
        assert module is not None, "a causal language model has an output layer"
        self.module: nn.Module = module
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self._precision = precision
        self.chunk = chunk_rows(budget, config.vocab_size, _COPIES)
        # Compiled, `_log_softmax` reads and writes bfloat16 alone: two arrays of half the size.
        narrow = module.weight.dtype == torch.bfloat16 and compiles_on(module.weight.device)
        self._closed_form_chunk = chunk_rows(budget, config.vocab_size, 1) if narrow else self.chunk

    @property
    def trained(self) -> bool:
        """Whether the layer itself takes a gradient."""
        return any(weight.requires_grad for weight in self.module.parameters())

    def logits(self, h: Tensor) -> Tensor:
        """(n, d) -> (n, v)."""
        return self._capped(self.module, h)

    def frozen(self) -> Logits:
        """The layer with its present weights, also after they are swapped for others."""
        weights = {name: weight.data for name, weight in self.module.named_parameters()}
        return lambda h: self._capped(lambda h: functional_call(self.module, weights, (h,)), h)

    def _capped(self, layer: Logits, h: Tensor) -> Tensor:
        with self._precision():
            logits = layer(h)
        if self.softcap is None:
            return logits
        return torch.tanh(logits / self.softcap) * self.softcap

    def terms(
        self,
        h: Tensor,
        labels: Tensor,
        reference: tuple[Logits, Tensor] | None = None,
        *,
        entropy: bool = False,
    ) -> TokenTerms:
        """Terms of N tokens (N,) from the states (N, d) that predict them.

        `reference` is the reference's head and its states (N, d), for KL.
        """
        differentiate = torch.is_grad_enabled() and (h.requires_grad or self.trained)
        if differentiate and not self.trained:
            return self._frozen_terms(h, labels, reference)
        parts: list[TokenTerms] = []
        for at in range(0, max(len(labels), 1), self.chunk):
            part = slice(at, at + self.chunk)
            frozen = None if reference is None else (reference[0], reference[1][part])
            call = (h[part], labels[part], frozen, entropy)
            if differentiate:
                parts.append(checkpoint(self._chunk, *call, use_reentrant=False))
            else:
                parts.append(self._chunk(*call))
        return TokenTerms.join(ops, parts)

    def _chunk(
        self, h: Tensor, labels: Tensor, reference: tuple[Logits, Tensor] | None, entropy: bool
    ) -> TokenTerms:
        frozen = None
        if reference is not None:
            with torch.no_grad():
                frozen = reference[0](reference[1])
        return self._of_logits(self.logits(h), labels, frozen, entropy)

    def _of_logits(
        self, logits: Tensor, labels: Tensor, reference: Tensor | None, entropy: bool
    ) -> TokenTerms:
        return TokenTerms.of(ops, logits, labels, reference, entropy=entropy)

    def _frozen_terms(
        self, h: Tensor, labels: Tensor, reference: tuple[Logits, Tensor] | None
    ) -> TokenTerms:
        return TokenTerms(
            *_ForwardGradient.apply(h, *self._method(h, reference), labels, reference)
        )

    def _method(self, h: Tensor, reference: tuple[Logits, Tensor] | None) -> Method:
        if reference is None and isinstance(self.module, nn.Linear):
            run = functools.partial(self._logps_and_gradient, self._scratch(h))
            return self._closed_form_chunk, run
        return self.chunk, self._terms_and_gradients

    def _terms_and_gradients(
        self, h: Tensor, labels: Tensor, reference: tuple[Logits, Tensor] | None
    ) -> list[tuple[Tensor, Tensor]]:
        """Each term of a chunk (n,) and its gradient by the token's state (n, d), by autograd."""
        with torch.enable_grad():
            h = h.detach().requires_grad_()
            terms = self._chunk(h, labels, reference, False)
            present = [term for term in (terms.logps, terms.kl) if term is not None]
            # A term depends on its own row of h alone: the sum's gradient is that of each.
            gradients = [
                torch.autograd.grad(term.sum(), h, retain_graph=True)[0] for term in present
            ]
        return [(term.detach(), grad) for term, grad in zip(present, gradients, strict=True)]

    def _scratch(self, h: Tensor) -> Tensor | None:
        """One buffer (n, v) for the logits of every chunk, where the layer is one float32 product.

        Fresh memory for each chunk would be paged in each time.
        """
        layer: Any = self.module
        with self._precision():
            cast = torch.is_autocast_enabled(h.device.type)
        plain = layer.bias is None and not cast and not compiles_on(h.device)
        if not plain or {h.dtype, layer.weight.dtype} != {torch.float32}:
            return None
        return h.new_empty(min(self.chunk, len(h)), len(layer.weight))

    def _logps_and_gradient(
        self, scratch: Tensor | None, h: Tensor, labels: Tensor, reference: None
    ) -> list[tuple[Tensor, Tensor]]:
        """The same for log π alone in closed form: ∂log π/∂logits = onehot − softmax."""
        del reference
        weight: Any = self.module.weight
        picks = labels[:, None]
        if scratch is None:
            with self._precision():
                logits = self.module(h)
        else:
            logits = torch.mm(h, weight.T, out=scratch[: len(h)])
        logps, gradient = _log_softmax(logits, picks, self.softcap, weight.dtype)
        return [(logps, gradient @ weight)]


@compiled_on_gpu
def _log_softmax(
    logits: Tensor, picks: Tensor, softcap: float | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """log π (n,) of `picks` (n, 1), and its gradient by the logits before the soft cap (n, v).

    logits (n, v) are the layer's product, not yet capped. The gradient comes in `dtype`. float32
    logits are overwritten: every step below works in place on the one array.
    """
    logits = ops.as_float(logits)
    cap_gradient = None
    if softcap is not None:
        logits = logits.div_(softcap).tanh_()
        cap_gradient = 1 - logits.square()  # of softcap · tanh(z / softcap)
        logits = logits.mul_(softcap)
    picked = logits.gather(1, picks)
    high = logits.amax(1, keepdim=True)
    total = logits.sub_(high).exp_().sum(1, keepdim=True)
    logps = picked - high - total.log()
    gradient = logits.div_(-total)  # −softmax
    at_pick = -torch.expm1(logps)  # 1 − π, exact where π is near 1
    if cap_gradient is not None:
        gradient = gradient.mul_(cap_gradient)
        at_pick = at_pick * cap_gradient.gather(1, picks)
    return logps[:, 0], gradient.to(dtype).scatter_(1, picks, at_pick.to(dtype))


class _ForwardGradient(torch.autograd.Function):
    """Terms of tokens; saves the gradient of each term by its token's state.

    h: the states (N, d), the only input with a gradient.
    chunk: tokens at a time.
    run: (h, labels, reference) of a chunk -> its terms (n,), each with its gradient (n, d).
    labels (N,), reference: handed to `run`, chunk by chunk.
    """

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        chunk: int,
        run: Callable[..., list[tuple[Tensor, Tensor]]],
        labels: Tensor,
        reference: tuple[Logits, Tensor] | None,
    ) -> tuple[Tensor, ...]:
        """(N, d) -> the terms, (N,) each."""
        count = 1 if reference is None else 2
        terms = [h.new_empty(len(h), dtype=torch.float32) for _ in range(count)]
        gradients = [torch.empty_like(h) for _ in range(count)]

        # A function of its own, so that nothing of a chunk lives on into the next.
        def fill(part: slice) -> None:
            frozen = None if reference is None else (reference[0], reference[1][part])
            for i, (term, gradient) in enumerate(run(h[part], labels[part], frozen)):
                terms[i][part], gradients[i][part] = term, gradient

        for at in range(0, len(h), chunk):
            fill(slice(at, at + chunk))
        ctx.save_for_backward(*gradients)
        return tuple(terms)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of h: Σ over terms of the loss's gradient by each (N,) times the saved."""
        saved = ctx.saved_tensors
        total = sum(
            (
                outer[:, None] * gradient
                for outer, gradient in zip(grad_outputs, saved, strict=True)
            ),
            start=torch.zeros_like(saved[0]),
        )
        return total.to(saved[0].dtype), None, None, None, None
