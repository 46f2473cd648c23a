"""The server's side on Flower: its strategies, with replies checked and rounds written to files.

`Checked` stands around a strategy of Flower's: each reply is read before Flower sees it, and one
that is late, failed or lies is left out by name. `FedPepTAO` is one with a server step of its own.
"""

# pyright: reportMissingImports=false

import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedProx, Strategy

from fpo_core.config.federated import FederationConfig
from fpo_core.errors import TrainingError
from fpo_core.events import Sink, note, warn
from fpo_core.federated.peptao import PeptaoState, Update
from fpo_core.federated.replies import fault
from fpo_core.federated.weight_files import Weights, read_weights, write_weights
from fpo_core.io.atomic import write_json
from fpo_core.io.foreign_text import one_line
from fpo_core.io.regular import read_json_object

PAIRS, STEPS, CLIENT = "num-examples", "steps", "client"
GLOBAL, SERVER, ROUNDS_FILE = "global", "server", "rounds.json"
_MOMENTS = ("momentum_vector", "m_t", "v_t")
"""What Flower's strategies remember between rounds, by their attributes."""


@dataclass
class Ledger:
    """What a federation went through, in files of its folder: rounds, bytes, who was left out."""

    folder: Path
    sink: Sink
    rounds: list[dict[str, Any]] = field(default_factory=list)
    blocks: list[int] | None = None
    """The blocks that are exchanged; None for all."""

    def open(self) -> Weights | None:
        """Read an earlier start of the same federation: its weights; None where there is none."""
        if not (self.folder / ROUNDS_FILE).is_file():
            return None
        values = read_json_object(self.folder / ROUNDS_FILE, TrainingError)
        self.rounds, self.blocks = list(values["rounds"]), values["blocks"]
        return read_weights(self.file(GLOBAL, len(self.rounds)))

    def file(self, name: str, number: int) -> Path:
        """The file of a round's weights, or of what the strategy carries from it to the next."""
        return self.folder / f"{name}-{number}.safetensors"

    def close_round(self, arrays: Weights, facts: dict[str, Any]) -> None:
        """Write a round's result: `ROUNDS_FILE`, which says whose files count, last of all."""
        write_weights(self.file(GLOBAL, facts["round"]), arrays)
        self.rounds.append(facts)
        write_json(self.folder / ROUNDS_FILE, {"blocks": self.blocks, "rounds": self.rounds})
        for name in (GLOBAL, SERVER):
            self.file(name, facts["round"] - 1).unlink(missing_ok=True)


class Checked(Strategy):
    """Around a strategy of Flower's: checks replies, counts bytes, writes every round."""

    def __init__(
        self, base: FedAvg, ledger: Ledger, config: FederationConfig, seed: int, inner: Strategy
    ) -> None:
        """`inner` is `base`, or one of Flower's privacy strategies around it."""
        self.base, self.inner, self.ledger = base, inner, ledger
        self._config, self._seed, self._done = config, seed, len(ledger.rounds)
        self._known: set[int] = set()
        if self._done:
            self.restore(ledger.file(SERVER, self._done))

    def summary(self) -> None:
        """See Flower."""
        self.inner.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """See Flower; clients are drawn by the seed and the round."""
        number = server_round + self._done
        self._before = numpy_of(arrays)
        nodes = nodes_of_round(grid, self._config, self._known)
        share = max(1, round(self._config.client_share * self._config.clients))
        self.base.min_train_nodes = self.base.min_available_nodes = min(share, len(nodes))
        # Flower would wait for a node that leaves while it draws; and draws from the module's
        # generator.
        present: Any = SimpleNamespace(get_node_ids=lambda: nodes)
        random.seed(self._seed * 1_000_003 + number)
        messages = list(self.inner.configure_train(number, arrays, config, present))
        self._asked = {message.metadata.dst_node_id for message in messages}
        self._absent = self._known - set(nodes)
        self._known |= set(nodes)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """See Flower; a reply that cannot be used is left out, by name."""
        number = server_round + self._done
        expected = {name: array.shape for name, array in self._before.items()}
        good: dict[str, Message] = {}
        left_out = {f"node {node}": "not connected" for node in self._absent}
        lost = "no answer in time"
        answered: set[int] = set()
        for reply in sorted(replies, key=lambda reply: reply.metadata.src_node_id):
            node = reply.metadata.src_node_id
            if node not in self._asked:  # the SuperLink, of a node that it lost
                lost = one_line(reply.error.reason or lost)[:200] if reply.has_error() else lost
                continue
            answered.add(node)
            name, why = _judged(reply, expected)
            if why is None and name in good:
                name, why = f"{name} of node {node}", "another has its name"
            if why is None:
                good[name] = reply
            else:
                left_out[name] = why
        left_out |= {f"node {node}": lost for node in self._asked - answered}
        for name, why in sorted(left_out.items()):
            warn(self.ledger.sink, f"round {number}: {name} is left out, {why}")
        # In the order of names: sums of floats must not depend on who answers first.
        names = sorted(good)
        arrays, metrics = self.inner.aggregate_train(number, _alike(good, names))
        result = self._before if arrays is None else numpy_of(arrays)
        means: Any = metrics or {"loss": None}
        size = sum(array.nbytes for array in self._before.values())
        facts = {
            "round": number,
            "clients": names,
            "left_out": left_out,
            "bytes_down": size * len(self._asked),
            "bytes_up": size * len(good),
            "loss": means["loss"],
        }
        self.remember(self.ledger.file(SERVER, number))
        self.ledger.close_round(result, facts)
        note(self.ledger.sink, f"round {number}: {len(good)} of {len(self._asked)} clients")
        return arrays_of(result), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Clients evaluate once, behind the last round."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> None:
        """See `configure_evaluate`."""

    def remember(self, path: Path) -> None:
        """Write what the strategy carries from round to round."""
        if isinstance(self.base, FedPepTAO):
            self.base.state.save(path)
            return
        carried: Weights = {}
        for attribute in _MOMENTS:
            value = getattr(self.base, attribute, None)
            if isinstance(value, list):
                value = dict(zip(self._before, value, strict=True))
            carried |= {f"{attribute}|{name}": array for name, array in (value or {}).items()}
        if carried:
            write_weights(path, carried)

    def restore(self, path: Path) -> None:
        """Read it back."""
        if isinstance(self.base, FedPepTAO):
            self.base.state.load(path)
            return
        carried = read_weights(path) if path.is_file() else {}
        for attribute in _MOMENTS:
            own = {k.partition("|")[2]: v for k, v in carried.items() if k.startswith(attribute)}
            if own:
                setattr(self.base, attribute, [*own.values()] if attribute == _MOMENTS[0] else own)


class FedPepTAO(FedAvg):
    """FedPepTAO (Che et al., arXiv 2310.15080), after its released code.

    Its server step in place of the mean; see `fpo_core.federated.peptao`.
    """

    def __init__(self, state: PeptaoState, **options: Any) -> None:
        super().__init__(**options)
        self.state = state

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """See Flower."""
        self._before = numpy_of(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """See Flower."""
        replies = list(replies)
        mean, metrics = super().aggregate_train(server_round, replies)
        if mean is None:
            return mean, metrics
        updates = [
            Update(name_of(reply), numpy_of(reply.content["arrays"]), *_counts(reply))
            for reply in replies
        ]
        return arrays_of(self.state.step(self._before, updates)), metrics


def make_strategy(config: FederationConfig, clients_rate: float) -> FedAvg:
    """The strategy of the settings, for clients that train at this learning rate."""
    options: dict[str, Any] = {"fraction_train": config.client_share, "weighted_by_key": PAIRS}
    rate, momentum = config.server_learning_rate, config.server_momentum
    if config.strategy == "fedavgm":
        return FedAvgM(server_learning_rate=rate or 1.0, server_momentum=momentum, **options)
    if config.strategy == "fedadam":
        return FedAdam(eta=rate or 1e-3, **options)
    if config.strategy == "fedprox":
        return FedProx(proximal_mu=config.proximal_mu, **options)
    if config.strategy == "fedpeptao":
        state = PeptaoState(clients_rate, config.clients, rate or 0.05, momentum)
        return FedPepTAO(state, **options)
    return FedAvg(**options)


def wait_for_nodes(grid: Grid, config: FederationConfig) -> list[int]:
    """The nodes that are there once all are, or after `round_timeout` at least one."""
    end = time.monotonic() + config.round_timeout
    while True:
        nodes = list(grid.get_node_ids())
        if len(nodes) >= (config.clients if time.monotonic() < end else 1):
            return nodes
        time.sleep(1)


def nodes_of_round(grid: Grid, config: FederationConfig, known: set[int]) -> list[int]:
    """The nodes that a round may ask; `known` are those of rounds before it.

    All are waited for at the start alone: later a lost one must not hold up the others.
    """
    return (list(grid.get_node_ids()) if known else []) or wait_for_nodes(grid, config)


def arrays_of(weights: Weights) -> ArrayRecord:
    """Flower's record of float32 arrays, by canonical name."""
    return ArrayRecord({n: Array(np.ascontiguousarray(w, np.float32)) for n, w in weights.items()})


def numpy_of(record: Any) -> Weights:
    """The arrays of such a record."""
    return {name: array.numpy() for name, array in record.items()}


def name_of(reply: Message) -> str:
    """What a client calls itself, safe to show."""
    about: Any = reply.content["about"]
    return one_line(str(about[CLIENT]))[:80]


def _counts(reply: Message) -> tuple[int, int]:
    metrics: Any = reply.content["metrics"]
    return int(metrics[PAIRS]), int(metrics[STEPS])


def _judged(reply: Message, expected: dict[str, tuple[int, ...]]) -> tuple[str, str | None]:
    """A client's name, and why its reply cannot be used; None where it can."""
    node = f"node {reply.metadata.src_node_id}"
    if reply.has_error():
        return node, one_line(reply.error.reason or "it failed")[:200]
    try:
        name = name_of(reply)
        record = reply.content["metrics"]
        if not isinstance(record, MetricRecord):
            raise TypeError("its metrics are no MetricRecord")
        metrics: Any = record
        arrays = numpy_of(reply.content["arrays"])
        why = fault(arrays, expected, float(metrics[PAIRS]), float(metrics[STEPS]))
        if why is None and not np.isfinite(float(metrics["loss"])):
            why = "its loss is not finite"
    except Exception as error:  # whatever a foreign client puts into its records
        return node, f"its reply cannot be read: {one_line(repr(error))[:160]}"
    return name, why


def _alike(good: dict[str, Message], names: list[str]) -> list[Message]:
    """Replies with what was checked, and those metrics beside it that all have.

    Flower ends the run where replies differ in their records or metrics.
    """
    metrics: dict[str, Any] = {name: good[name].content["metrics"] for name in names}
    shared = set.intersection(*map(set, metrics.values())) if names else set()
    for name in names:
        values = {key: metrics[name][key] for key in sorted(shared)}
        records = {"metrics": MetricRecord(values), "about": ConfigRecord({CLIENT: name})}
        good[name].content = RecordDict({"arrays": good[name].content["arrays"], **records})
    return [good[name] for name in names]
