"""The output layer at the scored tokens of all processes, each computing its rows of the logits.

    states (n, d) -> gathered, (m, d) -> logits (m, v_here) -> log Σ exp, label's logit: summed
                                                            -> KL, entropy: scattered

m = processes · n, for all processes take as many tokens at a time. What `TokenTerms` sums over a
vocabulary is summed over the rows here, then over processes.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from fpo_core.loss.packed import TokenTerms
from fpo_torch import ops
from fpo_torch.kernels.head import Head, Logits, Method, Precision
from fpo_torch.sharded.exchange import gathered, largest, most, padded, scattered, summed
from fpo_torch.sharded.vocabulary import Vocabulary


class ShardedHead(Head):
    """See `Head`; its logits are of the tokens of all processes, and of the rows here."""

    def __init__(
        self, vocabulary: Vocabulary, model: PreTrainedModel, budget: int, precision: Precision
    ) -> None:
        super().__init__(model, budget, precision)
        self._vocabulary = vocabulary
        self.chunk = min(self.chunk, vocabulary.chunk)
        self._ops: Any = _OverProcesses(vocabulary)

    def logits(self, h: Tensor) -> Tensor:
        """(n, d) -> (m, v_here)."""
        return self._capped(self._layer(), h)

    def frozen(self) -> Logits:
        """See `Head`; the weights are frozen, for KL of a split model is that of adapters."""
        with torch.no_grad():
            layer = self._layer()
        return lambda h: self._capped(layer, h)

    def _layer(self) -> Logits:
        weight, bias = (self._vocabulary.rows(self.module, n) for n in ("weight", "bias"))
        return lambda h: self._vocabulary.logits_here(h, weight, bias)

    def terms(
        self,
        h: Tensor,
        labels: Tensor,
        reference: tuple[Logits, Tensor] | None = None,
        *,
        entropy: bool = False,
    ) -> TokenTerms:
        """See `Head`."""
        count = max(most(self._vocabulary.group, len(labels)), 1)
        if reference is not None:
            reference = reference[0], padded(reference[1], count)
        h, scored = padded(h, count), padded(labels, count)
        terms = super().terms(h, scored, reference, entropy=entropy)
        return terms.map(lambda term: term[: len(labels)])

    def _of_logits(
        self, logits: Tensor, labels: Tensor, reference: Tensor | None, entropy: bool
    ) -> TokenTerms:
        every = gathered(labels)
        terms = TokenTerms.of(self._ops, logits, every, reference, entropy=entropy)
        start = self._vocabulary.group.rank * len(labels)
        return TokenTerms(
            terms.logps[start : start + len(labels)],
            None if terms.kl is None else scattered(terms.kl),
            None if terms.entropy is None else scattered(terms.entropy),
        )

    def _method(self, h: Tensor, reference: tuple[Logits, Tensor] | None) -> Method:
        del h, reference
        return self.chunk, self._terms_and_gradients


class _OverProcesses:
    """`fpo_torch.ops` on logits (m, v_here), where two of them mean the logits (m, v)."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def __getattr__(self, name: str) -> Any:
        return getattr(ops, name)

    def logsumexp(self, x: Tensor, axis: int) -> Tensor:
        """log Σ exp over the vocabulary, (m,)."""
        local = ops.logsumexp(x, axis)
        high = largest(local)
        return high + summed((local - high).exp()).log()

    def take_along_axis(self, x: Tensor, indices: Tensor, axis: int) -> Tensor:
        """The logits of tokens (m, 1), (m, 1)."""
        here, local = self._vocabulary.local(indices)
        return summed(torch.where(here, ops.take_along_axis(x, local, axis), 0.0))
