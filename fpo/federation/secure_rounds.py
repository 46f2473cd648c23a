"""The server's side of secure aggregation: rounds by Flower's SecAgg+ workflow.

Flower 1.42 has SecAgg+ for its older interface alone, with FitIns and FitRes: a round here is one
call of `SecAggPlusWorkflow` with its older FedAvg.
"""

# pyright: reportMissingImports=false

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common import (
    FitIns,
    FitRes,
    bytes_to_ndarray,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.compat.common.recorddict_compat import parameters_to_arrayrecord, recorddict_to_fitres
from flwr.server import LegacyContext
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.serverapp import Grid

from fpo.federation.strategies import CLIENT, Ledger, nodes_of_round
from fpo_core.config.federated import FederationConfig
from fpo_core.events import note, warn
from fpo_core.federated.weight_files import Weights
from fpo_core.io.foreign_text import one_line


def secure_rounds(
    config: FederationConfig, grid: Grid, ledger: Ledger, weights: Weights, seed: int
) -> Weights:
    """The weights after the rounds that are left, each the mean of masked weights.

    A client that is lost is left out by name; where fewer than the threshold stay, or a client
    breaks the protocol, the round leaves the weights as they were, with a warning.
    """
    known: set[int] = set()
    for number in range(len(ledger.rounds) + 1, config.rounds + 1):
        nodes = nodes_of_round(grid, config, known)
        left_out = {f"node {node}": "not connected" for node in known - set(nodes)}
        known |= set(nodes)
        count = min(max(2, round(config.client_share * config.clients)), len(nodes))
        asked = random.Random(seed * 1_000_003 + number).sample(sorted(nodes), count)
        checked = CheckedGrid(grid, {name: array.shape for name, array in weights.items()}, config)
        strategy = OneRound(checked, asked, list(weights), config)
        try:
            _run(checked, strategy, weights, number, config)
            why = strategy.fault()
        except Exception as error:  # whatever a foreign client puts into the protocol
            why = f"SecAgg+ ended in {one_line(repr(error))[:160]}"
        if why is None:
            weights = strategy.mean
        else:
            left_out["everyone"] = why
        # One that is lost once its masked weights are there is in the mean.
        left_out |= {
            f"node {node}": reason
            for node, reason in checked.left_out.items()
            if why or node not in strategy.results
        }
        for name, reason in sorted(left_out.items()):
            warn(ledger.sink, f"round {number}: {name} is left out, {reason}")
        results = [] if why else [*strategy.results.values()]
        size = sum(array.nbytes for array in weights.values())
        facts = {
            "round": number,
            "clients": sorted(one_line(str(result.metrics[CLIENT]))[:80] for result in results),
            "left_out": left_out,
            "bytes_down": size * checked.trained,
            "bytes_up": checked.bytes_up,
            "loss": strategy.loss() if results else None,
        }
        ledger.close_round(weights, facts)
        note(ledger.sink, f"round {number}: {len(results)} of {len(asked)} clients, masked")
    return weights


def _run(
    grid: Any, strategy: "OneRound", weights: Weights, number: int, config: FederationConfig
) -> None:
    """One round of Flower's workflow, with the state that its `DefaultWorkflow` would hand it."""
    context = LegacyContext(Context(1, 0, {}, RecordDict(), {}), strategy=strategy)
    parameters = ndarrays_to_parameters([*weights.values()])
    context.state[MAIN_PARAMS_RECORD] = parameters_to_arrayrecord(parameters, keep_input=False)
    context.state[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: number})
    workflow = SecAggPlus(
        1.0,
        config.reconstruction_threshold,
        max_weight=float(config.max_pairs),
        clipping_range=config.clipping_range,
        timeout=config.round_timeout,
    )
    workflow(grid, context)


class SecAggPlus(SecAggPlusWorkflow):
    """Flower's workflow, going on without clients that are lost before they train.

    Its own last stage asks for such a client's shares, which nobody has, and so ends the round.
    """

    def setup_stage(self, grid: Grid, context: LegacyContext, state: Any) -> bool:
        """See Flower: public keys."""
        return super().setup_stage(grid, context, state) and _forget_lost(state)

    def share_keys_stage(self, grid: Grid, context: LegacyContext, state: Any) -> bool:
        """See Flower: shares of the keys. Masks are between those who dealt theirs."""
        return super().share_keys_stage(grid, context, state) and _forget_lost(state)


def _forget_lost(state: Any) -> bool:
    there = set(state.active_node_ids)
    neighbours = state.nid_to_neighbours
    state.sampled_node_ids = there
    state.nid_to_neighbours = {node: neighbours[node] & there for node in there}
    return True


class OneRound(FedAvg):
    """Flower's older FedAvg, for clients that are drawn already, and what came of them."""

    def __init__(
        self, grid: Any, nodes: list[int], names: list[str], config: FederationConfig
    ) -> None:
        super().__init__(fit_metrics_aggregation_fn=lambda metrics: {})
        self._proxies = [GridClientProxy(node, grid, 1) for node in nodes]
        self._names, self._config = names, config
        self.results: dict[int, FitRes] = {}
        """By node."""
        self.mean: Weights = {}

    def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> Any:
        """See Flower; parameters have no names there, so these travel beside them."""
        config: Any = {
            "server-round": server_round,
            "local-iters": self._config.local_iters,
            "names": json.dumps(self._names),
            "max-pairs": self._config.max_pairs,
            "clipping-range": self._config.clipping_range,
        }
        return [(proxy, FitIns(parameters, config)) for proxy in self._proxies]

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        """See Flower; every result holds the mean already."""
        mean, metrics = super().aggregate_fit(server_round, results, failures)
        self.results = {proxy.node_id: result for proxy, result in results}
        if mean is not None:
            arrays = (array.astype(np.float32) for array in parameters_to_ndarrays(mean))
            self.mean = dict(zip(self._names, arrays, strict=True))
        return mean, metrics

    def fault(self) -> str | None:
        """Why the round has no mean; None where it has one."""
        if not self.mean:
            return "too few stayed to the end for SecAgg+"
        # Masks that do not cancel leave numbers of all sizes.
        peak = np.max([np.abs(array).max() for array in self.mean.values()])
        if not peak <= 1.01 * self._config.clipping_range:
            return "the sum of what they sent is out of range"
        return None

    def loss(self) -> float:
        """The clients' mean loss, weighted by their pairs."""
        results = self.results.values()
        losses = [float(result.metrics["loss"]) for result in results]
        return float(np.average(losses, weights=[result.num_examples for result in results]))


@dataclass
class CheckedGrid:
    """A grid for the workflow that leaves out answers which it could not use, by node."""

    grid: Grid
    shapes: dict[str, tuple[int, ...]]
    config: FederationConfig
    left_out: dict[int, str] = field(default_factory=dict)
    trained: int = 0
    """Clients that were sent weights."""
    bytes_up: int = 0
    """Of masked arrays."""

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """See Flower."""
        messages = list(messages)
        trains = any(_stage(m) == Stage.COLLECT_MASKED_VECTORS for m in messages)
        missing = {message.metadata.dst_node_id for message in messages}
        self.trained += trains * len(missing)
        lost, good = "no answer in time", []
        for reply in self.grid.send_and_receive(messages, timeout=timeout):
            node = reply.metadata.src_node_id
            why = _reason(reply) or (self._fault(reply) if trains else None)
            if node not in missing:  # the SuperLink, of a node that it lost
                lost = why or lost
                continue
            missing.remove(node)
            if why is None:
                good.append(reply)
            else:
                self.left_out[node] = why
        self.left_out |= dict.fromkeys(missing, lost)
        return good

    def _fault(self, reply: Message) -> str | None:
        """Why masked weights and what stands beside them cannot be used; None where they can."""
        try:
            records: Any = reply.content
            arrays = [
                bytes_to_ndarray(array)
                for array in records[RECORD_KEY_CONFIGS][Key.MASKED_PARAMETERS]
            ]
            result = recorddict_to_fitres(reply.content, keep_input=True)
            pairs, loss = result.num_examples, float(result.metrics["loss"])
            str(result.metrics[CLIENT])
        except Exception as error:  # whatever a foreign client puts into its records
            return f"its reply cannot be read: {one_line(repr(error))[:160]}"
        self.bytes_up += sum(array.nbytes for array in arrays)
        # The first is its masked share of pairs.
        shapes = [(1,), *self.shapes.values()]
        if [array.shape for array in arrays] != shapes or {a.dtype.kind for a in arrays} != {"i"}:
            return "its masked arrays have other shapes or types than were sent"
        if not 0 < pairs <= self.config.max_pairs:
            return f"its number of pairs is {pairs}, expected 1 to {self.config.max_pairs}"
        return None if np.isfinite(loss) else "its loss is not finite"


def _stage(message: Message) -> Any:
    records: Any = message.content
    return records[RECORD_KEY_CONFIGS][Key.STAGE]


def _reason(reply: Message) -> str | None:
    """What a client or the SuperLink says of its failure; None where it did not fail."""
    return one_line(reply.error.reason or "it failed")[:200] if reply.has_error() else None
