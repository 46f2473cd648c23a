"""Embeddings and output layer in rows of the vocabulary, which no process ever gathers.

Tokens and states travel in place of weights: every process embeds those tokens of all processes
that are among its rows, and computes the logits of its rows for the states of all.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.nn import functional
from transformers import PreTrainedModel

from fpo_core.backend.process_group import Group
from fpo_core.errors import BackendError
from fpo_core.loss.packing import chunk_rows
from fpo_torch.sharded.exchange import gathered, most, padded, scattered, swapped

_COPIES = 2
"""Of the states of all processes: themselves, and their gradients or what is made of them."""


def rows_here(count: int, group: Group) -> slice:
    """Which of a weight's rows are in this process."""
    size = -(-count // group.size)
    start = min(group.rank * size, count)
    return slice(start, min(start + size, count))


class Vocabulary:
    """The layers of a model that have a row per token; weights (v, d), (v_here, d) of them here."""

    def __init__(
        self,
        model: PreTrainedModel,
        mesh: DeviceMesh,
        group: Group,
        device: torch.device,
        budget: int,
    ) -> None:
        """Split the two layers of a model without memory, and have them compute together.

        States of all processes take `budget` MiB at once. Raises BackendError where they are none
        that can be split, or a process would have no row.
        """
        embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
        if (
            not isinstance(embedding, nn.Embedding)
            or not isinstance(output, nn.Linear)
            or embedding.num_embeddings != output.out_features
        ):
            raise BackendError(
                "shard splits embeddings and a linear output layer of the same tokens, but this "
                f"{type(model).__name__} has {embedding} and {output}: leave shard out"
            )
        self.group, self.output, self._device = group, output, device
        self.size = output.out_features
        self.here = rows_here(self.size, group)
        self.chunk = chunk_rows(budget, group.size * output.in_features, _COPIES)
        """Tokens of a process at a time."""
        self._width = -(-self.size // group.size)
        if (group.size - 1) * self._width >= self.size:
            raise BackendError(
                f"shard is set for {group.size} processes, among which a vocabulary of "
                f"{self.size} tokens does not split: start fewer"
            )
        self.weights: set[nn.Parameter] = set()
        """The split weights; one where the layers share it."""
        self._split((embedding, output), mesh)
        vars(embedding)["forward"] = self._embedder(embedding)
        vars(output)["forward"] = self._logits

    def _split(self, layers: tuple[nn.Module, ...], mesh: DeviceMesh) -> None:
        split: dict[nn.Parameter, nn.Parameter] = {}
        for layer in layers:
            for name, weight in list(layer.named_parameters(recurse=False)):
                if weight not in split:
                    rows = weight.detach()[rows_here(len(weight), self.group)]
                    options: Any = {"shape": weight.shape, "stride": weight.stride()}
                    whole = DTensor.from_local(rows, mesh, [Shard(0)], run_check=False, **options)
                    split[weight] = nn.Parameter(whole, requires_grad=weight.requires_grad)
                setattr(layer, name, split[weight])
        self.weights = set(split.values())

    def rows(self, layer: nn.Module, name: str = "weight") -> Any:
        """The rows of a layer's weight that are here, with its gradient; None where it has none."""
        weight: Any = getattr(layer, name)
        # Rows that are offloaded to the CPU are copied.
        return None if weight is None else weight.to_local().to(self._device)

    def _embedder(self, layer: nn.Embedding) -> Callable[[Tensor], Tensor]:
        """`layer.forward` on a table of the tokens at hand, so that a scale of its own applies."""
        own, parameters, padding = layer.forward, vars(layer)["_parameters"], layer.padding_idx
        layer.padding_idx = None

        def forward(ids: Tensor) -> Tensor:
            table = self._embedded(ids.reshape(-1), self.rows(layer), padding)
            split, parameters["weight"] = parameters["weight"], table
            try:
                return own(torch.arange(len(table), device=table.device).view(ids.shape))
            finally:
                parameters["weight"] = split

        return forward

    def _embedded(self, ids: Tensor, rows: Tensor, padding: int | None) -> Tensor:
        """(t,) tokens of this process -> (t, d)."""
        parts = padded(ids, most(self.group, len(ids))).split(self.chunk)
        return torch.cat([self._part(part, rows, padding) for part in parts])[: len(ids)]

    def _part(self, ids: Tensor, rows: Tensor, padding: int | None) -> Tensor:
        here, local = self.local(gathered(ids))
        # Torch's layer gives the row of its padding token no gradient.
        at = None if padding is None else padding - self.here.start
        at = at if at is not None and 0 <= at < len(rows) else None
        table = functional.embedding(local, rows, at)
        return scattered(torch.where(here[:, None], table, 0.0))

    def local(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Of tokens whether they are among the rows here, and which one, or 0."""
        here = (ids >= self.here.start) & (ids < self.here.stop)
        return here, torch.where(here, ids - self.here.start, 0)

    def logits_here(self, h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """States (n, d) of each process -> logits (processes · n, v_here) of the rows here."""
        return functional.linear(gathered(h), weight, bias)

    def _logits(self, h: Tensor) -> Tensor:
        """The output layer's whole logits, (…, d) -> (…, v), for paths that want all of them."""
        flat = h.reshape(-1, h.shape[-1])
        count = most(self.group, len(flat))
        weight, bias = (self.rows(self.output, name) for name in ("weight", "bias"))
        logits = self.logits_here(padded(flat, count), weight, bias)
        width = self._width
        parts = swapped(functional.pad(logits, (0, width - logits.shape[-1])))
        shaped = (part[: len(flat)].view(*h.shape[:-1], width) for part in parts.split(count))
        starts = range(0, self.size, width)
        pairs = zip(starts, shaped, strict=True)
        return torch.cat([part[..., : self.size - start] for start, part in pairs], -1)
