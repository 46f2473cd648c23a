"""The output layer at scored tokens, in chunks: no more than a budget of logits exists at once.

Computes log π, and where asked KL and entropy, of N tokens, (N,) each, from the hidden states
(N, d) that predict them. With a frozen layer the gradients by the states are computed in the
forward pass, chunk by chunk, and saved: (N, d) for each term in place of (N, v) logits. With a
trained layer each chunk saves its states and repeats its logits in backward.
It exists because logits of a large vocabulary are a step's largest arrays on every device.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx import nn

from fpo_core.errors import ModelError
from fpo_core.loss.logps import token_kl
from fpo_core.loss.packed import TokenTerms
from fpo_core.loss.packing import chunk_rows
from fpo_mlx import ops
from fpo_mlx.hooks import intercept

Logits = Callable[[mx.array], mx.array]
"""(n, d) hidden states -> (n, v) logits."""
Chunk = tuple[TokenTerms, list[mx.array]]
"""The terms of some tokens, and every array computed for them."""
_COPIES = 10
"""Arrays of the size of a chunk's logits that live at once, gradients and temporaries included."""


class Head:
    """A model's output layer, with the soft cap that follows it in Gemma 2."""

    def __init__(self, model: nn.Module, budget: int) -> None:
        self.module, self._method = find_head(model)
        self._layer: Callable[..., mx.array] = getattr(type(self.module), self._method)
        self._softcap: float | None = getattr(model.args, "final_logit_softcapping", None)
        weight: Any = self.module.weight
        self.vocab: int = weight.shape[0]
        self._chunk_rows = chunk_rows(budget, self.vocab, _COPIES)
        self._capturing = False
        self._states: mx.array | None = None
        intercept(self.module, self._call, self._method)

    def states(self, forward: Callable[[], Any]) -> mx.array:
        """What the model hands to its head in this pass: (b, t, d)."""
        self._capturing, self._states = True, None
        try:
            forward()
        finally:
            self._capturing = False
        states, self._states = self._states, None
        assert states is not None, "no forward pass went through the head"
        return states

    def _call(self, inner: Callable[..., mx.array], module: nn.Module, x: mx.array) -> mx.array:
        if not self._capturing:
            return inner(module, x)
        self._states = x
        return x  # what the model computes from this is lazy, and never evaluated

    @property
    def trained(self) -> bool:
        """Whether the layer itself takes a gradient."""
        return bool(self._weights())

    def _weights(self) -> dict[str, Any]:
        return self.module.trainable_parameters()

    def logits(self, h: mx.array) -> mx.array:
        """(n, d) -> (n, v)."""
        logits = self._uncapped(h)
        if self._softcap is None:
            return logits
        return mx.tanh(logits / self._softcap) * self._softcap

    def _uncapped(self, h: mx.array) -> mx.array:
        return self._layer(self.module, h)

    def frozen(self) -> Logits:
        """The layer as it is now, whatever its weights become."""
        weights = self._weights()
        return lambda h: self._with(weights, lambda: self.logits(h))

    def _with(self, weights: dict[str, mx.array], compute: Callable[[], Any]) -> Any:
        originals = self._weights()
        self.module.update(weights)
        try:
            return compute()
        finally:
            self.module.update(originals)

    def terms(
        self,
        h: mx.array,
        labels: mx.array,
        reference: tuple[Logits, mx.array] | None = None,
        *,
        entropy: bool = False,
        differentiate: bool = False,
    ) -> TokenTerms:
        """Terms of N tokens (N,) from the states (N, d) that predict them.

        `reference` is the reference's head and its states (N, d), for KL.
        """
        compute = self._chunk
        if differentiate:
            compute = self._repeated if self.trained else self._forward_gradient
        parts: list[TokenTerms] = []
        previous: list[mx.array] = []
        for at in range(0, max(labels.shape[0], 1), self._chunk_rows):
            part = slice(at, at + self._chunk_rows)
            rows = h[part]
            if previous:
                # MLX would evaluate all chunks side by side. Made to depend on the one before, a
                # chunk starts when that one's logits are free.
                rows = mx.depends([rows], previous)[0]
            frozen = None if reference is None else reference[0](reference[1][part])
            terms, previous = compute(rows, labels[part], frozen, entropy)
            parts.append(terms)
        return TokenTerms.join(ops, parts)

    def _chunk(
        self, h: mx.array, labels: mx.array, reference: mx.array | None, entropy: bool
    ) -> Chunk:
        terms = TokenTerms.of(ops, self.logits(h), labels, reference, entropy=entropy)
        return terms, terms.arrays()

    def _repeated(
        self, h: mx.array, labels: mx.array, reference: mx.array | None, entropy: bool
    ) -> Chunk:
        """A chunk of a trained head, under mx.checkpoint: its weights are an explicit input."""

        def run(weights: dict[str, Any], h: mx.array) -> list[mx.array]:
            return self._with(weights, lambda: self._chunk(h, labels, reference, entropy)[1])

        terms = mx.checkpoint(run)(self._weights(), h)
        return TokenTerms(*terms), terms

    def _forward_gradient(
        self, h: mx.array, labels: mx.array, reference: mx.array | None, entropy: bool
    ) -> Chunk:
        """A chunk of a frozen head, whose gradients are computed with its terms."""
        del entropy  # no objective has a gradient of it

        def forward(h: mx.array) -> list[mx.array]:
            return self._terms_and_gradients(h, labels, reference)

        def backward(_h: Any, cotangents: Any, outputs: Any) -> mx.array:
            # Outputs are the terms (n,), then their gradients by h (n, d), which double as the
            # saved arrays. Cotangents come for all of them; only those of the terms matter.
            count = len(outputs) // 2
            pairs = zip(cotangents[:count], outputs[count:], strict=True)
            return sum((c[:, None].astype(g.dtype) * g for c, g in pairs), mx.array(0, h.dtype))

        function = mx.custom_function(forward)
        function.vjp(backward)
        outputs: Any = function(h)
        return TokenTerms(*outputs[: len(outputs) // 2]), outputs

    def _terms_and_gradients(
        self, h: mx.array, labels: mx.array, reference: mx.array | None
    ) -> list[mx.array]:
        """The terms (n,), then each one's gradient by its own token's state (n, d).

        By the logits, log π has the gradient onehot − softmax, and KL(π_ref ‖ π) softmax − π_ref.
        """
        logits, picks = ops.as_float(self.logits(h)), labels[:, None]
        largest = logits.max(axis=-1, keepdims=True)
        weights = mx.exp(logits - largest)
        total = weights.sum(axis=-1, keepdims=True)
        picked = mx.take_along_axis(logits, picks, axis=-1) - largest
        terms = [(picked - mx.log(total))[:, 0]]
        # (weights − total · onehot) / −total is the gradient. The division waits until the
        # product with the layer, where it is one of (n, d) in place of (n, v).
        lowered = mx.take_along_axis(weights, picks, axis=-1) - total
        gradient = mx.put_along_axis(weights, picks, lowered, axis=-1)
        gradients = [(self._by_states(h, logits, gradient) / -total).astype(h.dtype)]
        if reference is not None:
            terms.append(token_kl(ops, logits, reference))
            gradient = weights / total - mx.softmax(ops.as_float(reference), axis=-1)
            gradients.append(self._by_states(h, logits, gradient))
        return [*terms, *gradients]

    def _by_states(self, h: mx.array, logits: mx.array, gradient: mx.array) -> mx.array:
        """A gradient by the logits (n, v) as one by the states (n, d)."""
        if self._softcap is not None:
            # d/dz of s · tanh(z / s) is 1 − tanh².
            gradient = gradient * (1 - mx.square(logits / self._softcap))
        # Being lazy, this evaluates the layer's transposed product and not its logits again.
        return mx.vjp(self._uncapped, [h], [gradient.astype(h.dtype)])[1][0]


def find_head(model: nn.Module) -> tuple[nn.Module, str]:
    """The output layer and the method that applies it: a layer of its own, or the embedding."""
    for _, module in [("", model), *model.named_modules()]:
        for name in ("lm_head", "embed_out"):
            if name in module:
                return module[name], "__call__"
    for _, module in model.named_modules():
        for name in ("embed_tokens", "wte"):
            if name in module:
                return module[name], "as_linear"
    raise ModelError(
        f"no output layer was found in this {type(model).__module__}: expected lm_head, embed_out "
        "or a tied embedding"
    )
