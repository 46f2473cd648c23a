"""The server's side on Flower: its strategies, with replies checked and rounds written to files.

A strategy here is one of Flower's with `Checked` in front: each reply is read before Flower sees
it, and one that is late, failed or lies is left out by name. `FedPepTAO` adds its server step.
"""

# pyright: reportMissingImports=false

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedProx

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
GLOBAL_FILE, ROUNDS_FILE = "global.safetensors", "rounds.json"
_MOMENTS = ("momentum_vector", "m_t", "v_t")
"""What Flower's strategies remember between rounds, by their attributes."""


@dataclass
class Ledger:
    """What a federation went through, in files of its folder: rounds, bytes, who was left out."""

    folder: Path
    sink: Sink
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def open(self) -> Weights | None:
        """Read an earlier start of the same federation: its weights; None where there is none."""
        if not (self.folder / ROUNDS_FILE).is_file():
            return None
        values = read_json_object(self.folder / ROUNDS_FILE, TrainingError)
        self.rounds = list(values["rounds"])
        return read_weights(self.folder / GLOBAL_FILE)

    def close_round(self, arrays: Weights, facts: dict[str, Any]) -> None:
        """Write a round's result: the weights first, the round that they are of second."""
        write_weights(self.folder / GLOBAL_FILE, arrays)
        self.rounds.append(facts)
        write_json(self.folder / ROUNDS_FILE, {"rounds": self.rounds})


class Checked(FedAvg):
    """Comes before a strategy of Flower's: checks replies, counts bytes, writes every round."""

    ledger: Ledger
    seed = 0

    def begin(self, ledger: Ledger, seed: int) -> int:
        """Set what rounds are written to; restore what is remembered. Rounds that are done."""
        self.ledger, self.seed = ledger, seed
        done = len(ledger.rounds)
        if done:
            self.restore(ledger.folder)
        return done

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """See Flower; clients are drawn by the seed and the round."""
        number = server_round + self._done
        self._before = {name: array.numpy() for name, array in arrays.items()}
        random.seed(self.seed * 1_000_003 + number)  # Flower draws from the module's generator
        messages = list(super().configure_train(number, arrays, config, grid))
        self._asked = {message.metadata.dst_node_id for message in messages}
        return messages

    def start(self, grid: Grid, initial_arrays: ArrayRecord, num_rounds: int = 3, **options: Any):
        """See Flower; of `num_rounds`, those that are left."""
        self._done = len(self.ledger.rounds)
        left = num_rounds - self._done
        return super().start(grid, initial_arrays, max(left, 0), **options)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """See Flower; a reply that cannot be used is left out, by name."""
        number = server_round + self._done
        expected = {name: array.shape for name, array in self._before.items()}
        good: list[tuple[str, Message]] = []
        left_out: dict[str, str] = {}
        received = list(replies)
        for reply in received:
            name, why = _judged(reply, expected)
            if why is None:
                good.append((name, reply))
            else:
                left_out[name] = why
        answered = {reply.metadata.src_node_id for reply in received}
        left_out |= {f"node {node}": "no answer in time" for node in self._asked - answered}
        for name, why in sorted(left_out.items()):
            warn(self.ledger.sink, f"round {number}: {name} is left out, {why}")
        # In the order of names: sums of floats must not depend on who answers first.
        good.sort(key=lambda item: item[0])
        arrays, metrics = super().aggregate_train(number, [reply for _, reply in good])
        result = self._before if arrays is None else numpy_of(arrays)
        size = sum(array.nbytes for array in self._before.values())
        facts = {
            "round": number,
            "clients": [name for name, _ in good],
            "left_out": left_out,
            "bytes_down": size * len(self._asked),
            "bytes_up": size * len(good),
            "loss": None if metrics is None else float(metrics["loss"]),
        }
        self.remember(self.ledger.folder)
        self.ledger.close_round(result, facts)
        note(self.ledger.sink, f"round {number}: {len(good)} of {len(self._asked)} clients")
        return arrays_of(result), metrics

    def remember(self, folder: Path) -> None:
        """Write what the strategy carries from round to round."""
        carried: Weights = {}
        for attribute in _MOMENTS:
            value = getattr(self, attribute, None)
            if isinstance(value, list):
                value = dict(zip(self._before, value, strict=True))
            carried |= {f"{attribute}|{name}": array for name, array in (value or {}).items()}
        if carried:
            write_weights(folder / "server.safetensors", carried)

    def restore(self, folder: Path) -> None:
        """Read it back."""
        path = folder / "server.safetensors"
        carried = read_weights(path) if path.is_file() else {}
        for attribute in _MOMENTS:
            own = {k.partition("|")[2]: v for k, v in carried.items() if k.startswith(attribute)}
            if own:
                setattr(self, attribute, [*own.values()] if attribute == _MOMENTS[0] else own)


class CheckedAvg(Checked):
    """FedAvg (McMahan et al., arXiv 1602.05629)."""


class CheckedAvgM(Checked, FedAvgM):
    """FedAvgM: momentum on the server (Hsu et al., arXiv 1909.06335)."""


class CheckedAdam(Checked, FedAdam):
    """FedAdam (Reddi et al., arXiv 2003.00295)."""


class CheckedProx(Checked, FedProx):
    """FedProx (Li et al., arXiv 1812.06127)."""


class _PeptaoStep(FedAvg):
    """FedPepTAO's server step in place of the mean; see `fpo_core.federated.peptao`."""

    state: PeptaoState

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


class FedPepTAO(Checked, _PeptaoStep):
    """FedPepTAO (Che et al., arXiv 2310.15080), after its released code."""

    def __init__(self, state: PeptaoState, **options: Any) -> None:
        super().__init__(**options)
        self.state = state

    def remember(self, folder: Path) -> None:
        """See `Checked`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.state.save(folder / "server.safetensors")

    def restore(self, folder: Path) -> None:
        """See `Checked`."""
        self.state.load(folder / "server.safetensors")


def make_strategy(config: FederationConfig, clients_rate: float, present: int) -> Checked:
    """The strategy of the settings, for `present` clients that train at this learning rate."""
    share = max(1, round(config.client_share * present))
    options: dict[str, Any] = {
        "fraction_train": config.client_share,
        "min_train_nodes": min(share, present),
        "min_evaluate_nodes": 1,
        "min_available_nodes": min(share, present),
        "weighted_by_key": PAIRS,
    }
    rate, momentum = config.server_learning_rate, config.server_momentum
    if config.strategy == "fedavgm":
        return CheckedAvgM(server_learning_rate=rate or 1.0, server_momentum=momentum, **options)
    if config.strategy == "fedadam":
        return CheckedAdam(eta=rate or 1e-3, **options)
    if config.strategy == "fedprox":
        return CheckedProx(proximal_mu=config.proximal_mu, **options)
    if config.strategy == "fedpeptao":
        state = PeptaoState(clients_rate, present, rate or 0.05, momentum)
        return FedPepTAO(state, **options)
    return CheckedAvg(**options)


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
        metrics: Any = reply.content["metrics"]
        arrays = numpy_of(reply.content["arrays"])
        why = fault(arrays, expected, float(metrics[PAIRS]), float(metrics[STEPS]))
        if why is None and not np.isfinite(float(metrics["loss"])):
            why = "its loss is not finite"
    except Exception as error:  # whatever a foreign client puts into its records
        return node, f"its reply cannot be read: {one_line(repr(error))[:160]}"
    return name, why
