"""Log-probabilities from hidden states, chunk by chunk: no more than a budget of logits at once."""

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
_COPIES = 3
"""Logits, their softmax and a gradient of one chunk live at once. Where a GPU makes the gradient by
hand, it reads and writes bfloat16 alone: two arrays of half the size."""


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
        narrow = module.weight.dtype == torch.bfloat16 and compiles_on(module.weight.device)
        self._chunk_by_hand = chunk_rows(budget, config.vocab_size, 1) if narrow else self.chunk

    @property
    def trained(self) -> bool:
        """Whether the layer itself takes a gradient."""
        return any(weight.requires_grad for weight in self.module.parameters())

    def logits(self, h: Tensor) -> Tensor:
        """(n, d) -> (n, v)."""
        return self._capped(self.module, h)

    def frozen(self) -> Logits:
        """The layer as it is now, whatever its weights become."""
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

        `reference` is the reference's head and its states (N, d), for KL. With a frozen head each
        chunk's gradient is taken in the forward pass; a trained head repeats a chunk in backward.
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
        return TokenTerms.of(ops, self.logits(h), labels, frozen, entropy=entropy)

    def _frozen_terms(
        self, h: Tensor, labels: Tensor, reference: tuple[Logits, Tensor] | None
    ) -> TokenTerms:
        run, chunk = self._terms_and_slopes, self.chunk
        if reference is None and isinstance(self.module, nn.Linear):
            run = functools.partial(self._logps_and_slope, self._scratch(h))
            chunk = self._chunk_by_hand
        return TokenTerms(*_ForwardGradient.apply(h, chunk, run, labels, reference))

    def _terms_and_slopes(
        self, h: Tensor, labels: Tensor, reference: tuple[Logits, Tensor] | None
    ) -> list[tuple[Tensor, Tensor]]:
        """Each term of a chunk (n,) and its gradient by its own state (n, d)."""
        with torch.enable_grad():
            h = h.detach().requires_grad_()
            terms = self._chunk(h, labels, reference, False)
            found = [term for term in (terms.logps, terms.kl) if term is not None]
            slopes = [torch.autograd.grad(term.sum(), h, retain_graph=True)[0] for term in found]
        return [(term.detach(), slope) for term, slope in zip(found, slopes, strict=True)]

    def _scratch(self, h: Tensor) -> Tensor | None:
        """Room for the logits of every chunk in turn, where the layer is one float32 product."""
        layer: Any = self.module
        with self._precision():
            cast = torch.is_autocast_enabled(h.device.type)
        plain = layer.bias is None and not cast and not compiles_on(h.device)
        if not plain or {h.dtype, layer.weight.dtype} != {torch.float32}:
            return None
        return h.new_empty(min(self.chunk, len(h)), len(layer.weight))

    def _logps_and_slope(
        self, scratch: Tensor | None, h: Tensor, labels: Tensor, reference: None
    ) -> list[tuple[Tensor, Tensor]]:
        """The same for log π alone, by hand: ∂log π/∂logits = onehot − softmax."""
        del reference
        weight: Any = self.module.weight
        picks = labels[:, None]
        if scratch is None:
            with self._precision():
                logits = self.module(h)
        else:
            logits = torch.mm(h, weight.T, out=scratch[: len(h)])
        logps, slope = _log_softmax(logits, picks, self.softcap, weight.dtype)
        return [(logps, slope @ weight)]


@compiled_on_gpu
def _log_softmax(
    logits: Tensor, picks: Tensor, softcap: float | None, precision: torch.dtype
) -> tuple[Tensor, Tensor]:
    """log π of `picks` (n, 1) from a layer's product (n, v), before its soft cap, and the slope
    of log π by that product, in this precision. Writes over float32 logits.
    """
    logits = ops.as_float(logits)
    bend = None
    if softcap is not None:
        logits = logits.div_(softcap).tanh_()
        bend = 1 - logits.square()
        logits = logits.mul_(softcap)
    picked = logits.gather(1, picks)
    high = logits.amax(1, keepdim=True)
    total = logits.sub_(high).exp_().sum(1, keepdim=True)
    logps = picked - high - total.log()
    slope = logits.div_(-total)
    at_pick = -torch.expm1(logps)  # 1 − π, exact where π is near 1
    if bend is not None:
        slope, at_pick = slope.mul_(bend), at_pick * bend.gather(1, picks)
    return logps[:, 0], slope.to(precision).scatter_(1, picks, at_pick.to(precision))


class _ForwardGradient(torch.autograd.Function):
    """Terms of tokens whose gradients by their own states are kept from the forward pass."""

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
        slopes = [torch.empty_like(h) for _ in range(count)]

        def fill(part: slice) -> None:
            # Nothing made here outlives its turn: the next chunk of logits takes its place.
            frozen = None if reference is None else (reference[0], reference[1][part])
            for i, (term, slope) in enumerate(run(h[part], labels[part], frozen)):
                terms[i][part], slopes[i][part] = term, slope

        for at in range(0, len(h), chunk):
            fill(slice(at, at + chunk))
        ctx.save_for_backward(*slopes)
        return tuple(terms)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Each state's gradient: Σ over terms of the incoming gradient times the slope kept."""
        slopes = ctx.saved_tensors
        total = sum(
            (
                gradient[:, None] * slope
                for gradient, slope in zip(grad_outputs, slopes, strict=True)
            ),
            start=torch.zeros_like(slopes[0]),
        )
        return total.to(slopes[0].dtype), None, None, None, None
